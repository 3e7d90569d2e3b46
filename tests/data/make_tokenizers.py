#!/usr/bin/env python3
"""Makes tests/data/tokenizers: small tokenizers of every supported shape, with golden encodings.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.3
    /tmp/venv/bin/python make_tokenizers.py ../../../shared/data/wikitext-2/valid.txt
    /tmp/venv/bin/python make_tokenizers.py --differences ../../models/demo \\
        golden/qwen2-8m.tokens.jsonl golden/qwen2-8m.differences.jsonl

Each folder gets tokenizer.json or tokenizer.model, and golden.jsonl: text, ids, ids_special, decoded.
The encodings are those of the two libraries above, so that ours are held against theirs.

--differences writes the lines of a golden file that tokenizer.json itself encodes otherwise. There are
six for qwen2-8m: its golden file was made through transformers 5, whose Qwen2Tokenizer class puts an
NFC normalizer into any tokenizer.json, and a token <|endoftext|> of id 4096, past the model's vocabulary.
"""

import io
import json
import pathlib
import random
import re
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "tokenizers"

QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)

TEXTS = [
    "", " ", "  ", "\n", "\t", "\r\n", "\0", "a\0b\0\0c", "Hello, world!", " leading", "  two leading",
    "trailing  ", "a  b   c    d", "tabs\tand\t\ttabs", "line\nline\n\nline\r\nline\r\n\r\n  indented",
    " \n \n  x", "x \u00a0\u2003\u3000 y", "mongolian\u180evowel separator \u180e", "next\u0085line\u2028\u2029",
    "\x0b\x0c \x1c\x1d\x1e\x1f", "zero\u200bwidth\ufeff", "1234567890 12 3.14159 1,000,000 ½ Ⅷ ٣٤ 三",
    "don't I'LL we'Re they'VE i'm it'D he'S can'T", "it'\u017f IT'\u017f '\u212a 'l\u0142 'LL'd's",
    "don\u2019t '' 's' 'tis 'd'd", "e\u0301 o\u0308\u0323 \u0323\u0308o cafe\u0301 café \u212b \u1e9b\u0323 \uac00 \u1100\u1161\u11a8",
    "\u0301start with a mark a\u0316\u0301\u0316\u0301", "\u0344 \u2126 \u0958 \ufb1d \U0001d15e",
    "中文字符，没有空格。日本語のテキスト 한국어", "مرحبا بالعالم שלום עולם‏", "हिन्दी தமிழ் ไทย",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ☃️", "Ελληνικά Русский ǅ ǆ ß ẞ ﬁ", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ ≠ ∞", "\U00010348\U0010ffff\ue000\ufffd",
    "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nHi<|im_end|>\n", "<|im", "<|im_star|>", "<|im_start<|im_start|>",
    "x  <mask>  y", "<mask>", "  <mask>  <mask>  ", "a <rs>  b<rs>\n\nc", "  <ls>  <ls>d", "<rs>  <ls> <both>  \u00a0<both>z",
    "tool", "a tool b", "toolbox tool, (tool) _tool tool_ 1tool tool\u0301 \u0394tool", "tooltool", "tool tool",
    "naïve re\u0301sume\u0301 résumé x", "res\u0301ume", "    four", "a    b     c        d",
    "<s>", "</s>", "<s>Hello</s>", "a <s> b </s> c", "<unk>", "<unk> <unk>x", "<pad>", "[INST] Hi [/INST]",
    "▁", "▁▁a", "a▁b ▁ c", " ▁", "<0x41>", "<0x0A>x", "\ufffd", "Ġ Ċ ġ", "def f(x):\n    return x ** 2  # square\n",
    "<|begin_of_text|>Once<|eot_id|>", "https://example.com/?q=a&b=c#d", "aaaaaaaaaaaaaaaaaaaa", "the the  The THE",
]

ATOMS = (["a", "the", "Tool", "tool", "'s", "'S", "'ll", "e\u0301", "\u0301", "\u0316", "é", "中", "日本", "ש", "👍🏽", "\u200d",
          "1", "42", "1999", "½", ".", ",", "!?", "(", "_", " ", "  ", "   ", "\n", "\r\n", "\t", "\u00a0", "\u3000",
          "\0", "▁", "ſ", "K", "<s>", "</s>", "<unk>", "<mask>", "<rs>", "<ls>", "<both>", "<|im_start|>",
          "<|endoftext|>", "<|begin_of_text|>", "    ", "\U0001f9a6", "\uac00", "\u11a8", "ñ", "Ω"])


def texts():
    rng = random.Random(7)
    made = ["".join(rng.choice(ATOMS) for _ in range(rng.randint(1, 14))) for _ in range(150)]
    made += ["".join(chr(rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x250, 0xD800),
                                     rng.randrange(0xE000, 0x11000)])) for _ in range(12))
             for _ in range(40)]
    return TEXTS + [t for t in made if all(is_settled(c) for c in t)]


def is_settled(character):
    """Whether the character was assigned by Unicode 14, or is in a private area: tables agree on it."""
    import unicodedata
    return unicodedata.category(character) != "Cn" and ord(character) not in NEWER


# Assigned by Unicode 15 and later, below U+11000.
NEWER = {0x0CF3, 0x0ECE, 0x10EFD, 0x10EFE, 0x10EFF, 0x2FFC, 0x2FFD, 0x2FFE, 0x2FFF, 0x31EF}


def write(name, tokenizer_json, encode=None):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tokenizer_json, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    write_golden(folder, lambda t, special: tokenizer.encode(t, add_special_tokens=special).ids,
                 tokenizer)
    return tokenizer


def write_golden(folder, encode, tokenizer):
    with open(folder / "golden.jsonl", "w", encoding="utf-8") as file:
        for text in texts():
            ids = encode(text, False)
            line = {"text": text, "ids": ids, "ids_special": encode(text, True),
                    "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
            file.write(json.dumps(line) + "\n")


def train(corpus, pre_tokenizer, normalizer=None, vocab_size=700, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def split_then_bytes(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make_qwen2_style(corpus):
    tokenizer = train(corpus, split_then_bytes(QWEN2_SPLIT), normalizers.NFC())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([
        AddedToken("<|im", normalized=False),
        AddedToken("<mask>", lstrip=True, normalized=False, special=True),
        AddedToken("<ls>", lstrip=True, normalized=True),
        AddedToken("<rs>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
        AddedToken("tool", single_word=True, normalized=True),
        AddedToken("re\u0301sume\u0301", normalized=True),
        AddedToken("res\u0301ume", normalized=False),
        AddedToken("    ", normalized=False),
        AddedToken("\u00e9!", normalized=False),
    ])
    write("qwen2-style", json.loads(tokenizer.to_str()))


def make_llama3_style(corpus):
    tokenizer = train(corpus, split_then_bytes(LLAMA3_SPLIT), ignore_merges=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)])])
    made = json.loads(tokenizer.to_str())
    # The older way of writing merges; and without every seventh, so that ignore_merges matters.
    made["model"]["merges"] = [" ".join(m) for i, m in enumerate(made["model"]["merges"]) if i % 7 != 3]
    write("llama3-style", made)


def make_gpt2_style(corpus):
    tokenizer = train(corpus, pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", end)])
    write("gpt2-style", json.loads(tokenizer.to_str()))


def train_sentencepiece(corpus):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, model_type="bpe", vocab_size=900,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, character_coverage=0.9999,
        unk_surface=" \u2047 ", minloglevel=2)
    return model.getvalue()


def bpe_of(pieces):
    """The vocabulary and merges of a SentencePiece BPE model, as Hugging Face converts it."""
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        parts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        parts = [p for p in parts if p[0] in vocab and p[1] in vocab]
        parts.sort(key=lambda p: (vocab[p[0]], vocab[p[1]]))
        merges += [(score, p) for p in parts]
    merges.sort(key=lambda m: (m[0], len(m[1][0]), len(m[1][1])), reverse=True)
    return vocab, [m[1] for m in merges]


LLAMA2_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def llama2_json(pieces, **components):
    vocab, merges = bpe_of(pieces)
    added = [{"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for t in ("<unk>", "<s>", "</s>")]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": None, "post_processor": template("<s>", vocab),
            "decoder": LLAMA2_DECODER,
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                      "vocab": vocab, "merges": merges}, **components}


def template(token, vocab):
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    a = {"Sequence": {"id": "A", "type_id": 0}}
    b = {"Sequence": {"id": "B", "type_id": 1}}
    return {"type": "TemplateProcessing", "single": [special, a], "pair": [special, a, b],
            "special_tokens": {token: {"id": token, "ids": [vocab[token]], "tokens": [token]}}}


def make_sentencepiece_forms(corpus):
    serialized = train_sentencepiece(corpus)
    processor = sentencepiece.SentencePieceProcessor(model_proto=serialized)
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    llama2 = write("llama2-style", llama2_json(pieces, normalizer={"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}))
    write("mistral-style", llama2_json(pieces, pre_tokenizer={
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}))
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    made = llama2_json(pieces, pre_tokenizer=metaspace, decoder=metaspace)
    made["model"].update(byte_fallback=False, fuse_unk=False)
    write("metaspace-style", made)

    folder = OUT / "sentencepiece"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(serialized)

    def encode(text, special):
        """As LlamaTokenizer: special tokens cut out, each stretch between encoded for itself."""
        ids = [processor.bos_id()] if special else []
        for part in re.split("(<unk>|<s>|</s>)", text):
            is_token = part in ("<unk>", "<s>", "</s>")
            ids += [processor.piece_to_id(part)] if is_token else processor.encode(part)
        return ids

    write_golden(folder, encode, llama2)


def write_differences(model, golden, out):
    tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
    with open(golden, encoding="utf-8") as lines, open(out, "w", encoding="utf-8") as file:
        for line in map(json.loads, lines):
            ids = tokenizer.encode(line["text"], add_special_tokens=False).ids
            if ids != line["ids"]:
                decoded = tokenizer.decode(ids, skip_special_tokens=False)
                file.write(json.dumps({"text": line["text"], "ids": ids, "decoded": decoded}) + "\n")


def main():
    if sys.argv[1] == "--differences":
        write_differences(*sys.argv[2:])
        return
    corpus = [line for line in pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split("\n") if line]
    make_qwen2_style(corpus)
    make_llama3_style(corpus)
    make_gpt2_style(corpus)
    make_sentencepiece_forms(corpus)


if __name__ == "__main__":
    main()
