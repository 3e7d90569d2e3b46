"""Makes the tiny random checkpoints under models/, each with goldens from transformers.

    python3 make_models.py OUT_DIR

Beside each checkpoint: logits.safetensors (`input_ids` [2, 40], `logits` [2, 40, vocab], FP32
arithmetic on the stored weights) and greedy.json (`prompt_ids`, `ids`: a greedy continuation, EOS
ignored). models/README.md says which versions made the files.
"""

import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

VOCAB = 192
COMMON = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
              bos_token_id=1, eos_token_id=2, attn_implementation="eager")


def randomize(model, seed):
    """Weights large enough that every part shows in the logits: norms, biases and positions too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            elif "embed" in name or "lm_head" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)


def goldens(model, path, seed):
    generator = torch.Generator().manual_seed(100 + seed)
    ids = torch.randint(3, VOCAB, (2, 40), generator=generator)
    model.eval()
    with torch.no_grad():
        logits = model(ids).logits
        prompt = ids[0, :5].tolist()
        sequence = list(prompt)
        gap = float("inf")
        for _ in range(12):
            best = model(torch.tensor([sequence])).logits[0, -1].topk(2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            sequence.append(int(best.indices[0]))
    # Well above the rounding by which an FP32 implementation may differ.
    print(f"{os.path.basename(path)}: logits std {logits.std():.2f}, smallest greedy gap {gap:.4f}")
    assert gap > 5e-3, "a greedy golden that rounding could change: choose another seed"
    save_file({"input_ids": ids.to(torch.int32), "logits": logits.float().contiguous()},
              os.path.join(path, "logits.safetensors"))
    with open(os.path.join(path, "greedy.json"), "w") as file:
        json.dump({"prompt_ids": prompt, "ids": sequence[len(prompt):]}, file)


def make(out, name, seed, model_class, config, dtype=torch.bfloat16, **save):
    path = os.path.join(out, name)
    model = model_class(config)
    randomize(model, seed)
    model = model.to(dtype)
    if config.tie_word_embeddings:
        model.tie_weights()
    model.config.architectures = [model_class.__name__]
    model.save_pretrained(path, **save)
    # Loaded again rather than converted, which would leave rope's frequencies rounded to DTYPE.
    goldens(model_class.from_pretrained(path, dtype=torch.float32, attn_implementation="eager"), path,
            seed)
    return path


def rewrite(path, name, change):
    """A second config beside config.json."""
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    change(config)
    with open(os.path.join(path, name), "w") as file:
        json.dump(config, file, indent=2)


def to_old_spelling(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")


def main():
    out = sys.argv[1]
    t = transformers
    # Wavelengths (head_dim 32) are 6.28, 11.2, 19.9, 35.3, ...; those below 32 / 4 stay, those above
    # 32 / 1 are stretched, those between are blended. With 16 the first band would be empty.
    llama3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    path = make(out, "llama3-rope", 1, t.LlamaForCausalLM,
                t.LlamaConfig(**{**COMMON, "num_attention_heads": 2, "num_key_value_heads": 1},
                              rope_parameters=llama3, tie_word_embeddings=False))
    rewrite(path, "config.old.json", to_old_spelling)
    make(out, "llama-linear-rope", 2, t.LlamaForCausalLM,
         t.LlamaConfig(**COMMON, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                       rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
         dtype=torch.float16)
    make(out, "llama2", 3, t.LlamaForCausalLM,
         t.LlamaConfig(**{**COMMON, "num_key_value_heads": 4, "num_hidden_layers": 1,
                           "intermediate_size": 64},
                       tie_word_embeddings=False),
         dtype=torch.float32, max_shard_size="80KB")
    make(out, "qwen2", 4, t.Qwen2ForCausalLM, t.Qwen2Config(**COMMON, tie_word_embeddings=True))
    make(out, "qwen3", 5, t.Qwen3ForCausalLM,
         t.Qwen3Config(**COMMON, head_dim=24, tie_word_embeddings=False))
    path = make(out, "mistral", 6, t.MistralForCausalLM,
                t.MistralConfig(**COMMON, sliding_window=None, tie_word_embeddings=False))
    rewrite(path, "config.window.json", lambda config: config.update(sliding_window=16))
    print("transformers", t.__version__, "torch", torch.__version__)


main()
