#!/usr/bin/env python3
"""Writes a GGUF model of random weights in the shape of a Hugging Face config.json (arch llama or
qwen2), without a tokenizer, for llama-bench. Needs the PyPI package gguf.

  write_gguf.py CONFIG q4_0|mxfp4 OUT

Linear layers get the type named. A tied output is the token embedding, and gets the type that
llama.cpp's own quantizer gives it: under Q4_0 Q6_K, or Q8_0 where 256 does not divide the hidden
size (so at 896); under MXFP4 Q8_0. An untied embedding has the type of the linear layers, or Q8_0
under MXFP4. That quantizer's MXFP4 is meant for experts: it would leave a dense model's linear
layers Q8_0, so here they are what its --tensor-type asks for. Norms, biases and rope factors are
F32.
"""
import json
import math
import sys

import gguf
import numpy as np

DEVIATION = 0.02  # of the weights
CHUNK = 1 << 16   # blocks drawn at once; one chunk is repeated

Type = gguf.GGMLQuantizationType


def scale(rms):
    """An F16 scale, as bytes, that gives codes of this root mean square the deviation."""
    return np.frombuffer(np.float16(DEVIATION / rms).tobytes(), np.uint8)


def random_blocks(kind, random):
    """CHUNK blocks of uniformly random codes, [CHUNK, bytes a block]."""
    block = random.integers(0, 256, (CHUNK, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    if kind == Type.Q4_0:  # scale, codes -8 to 7
        block[:, :2] = scale(4.64)
    elif kind == Type.Q8_0:  # scale, codes -128 to 127
        block[:, :2] = scale(73.9)
    elif kind == Type.Q6_K:  # codes -32 to 31, 16 scales I8, one of them all
        block[:, 192:208] = random.integers(48, 80, (CHUNK, 16), np.uint8)
        block[:, 208:] = scale(18.5 * 64)
    elif kind == Type.MXFP4:  # E8M0, codes of root mean square 2.93
        block[:, 0] = random.integers(119, 121, CHUNK, np.uint8)
    else:
        raise ValueError(f"no random {kind.name}")
    return block


class Tensors:
    """What the file holds, in order; data are made as they are written."""

    def __init__(self, writer):
        self.writer = writer
        self.random = np.random.default_rng(1)
        self.chunks = {}
        self.makers = []

    def add_quantized(self, name, kind, rows, columns):
        values, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (rows, columns // values * size)

        def make():
            if kind not in self.chunks:
                self.chunks[kind] = random_blocks(kind, self.random).reshape(-1)
            return np.resize(self.chunks[kind], shape)

        self.writer.add_tensor_info(name, shape, np.dtype(np.uint8), math.prod(shape), kind)
        self.makers.append(make)

    def add_floats(self, name, values):
        values = np.asarray(values, np.float32)
        self.writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
        self.makers.append(lambda: values)

    def add_norm(self, name, size):
        self.add_floats(name, np.ones(size))

    def add_bias(self, name, size):
        self.add_floats(name, self.random.normal(0, DEVIATION, size))

    def write(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        for make in self.makers:
            self.writer.write_tensor_data(make())
        self.writer.close()


def rope_divisors(config, head_dim):
    """llama3's rope scaling: what each frequency is divided by (arXiv 2407.21783 and the released
    models' configs); None for other models."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (i / head_dim)
        turns = scaling["original_max_position_embeddings"] / wavelength
        part = min(max((turns - low) / (high - low), 0), 1)  # of the frequency that stays
        divisors.append(1 / ((1 - part) / scaling["factor"] + part))
    return divisors


def add_metadata(writer, config, head_dim):
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def output_type(kind, hidden):
    if kind == Type.Q4_0 and hidden % gguf.GGML_QUANT_SIZES[Type.Q6_K][0] == 0:
        return Type.Q6_K
    return Type.Q8_0


def add_layer(tensors, index, kind, config, head_dim, biased):
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * head_dim
    keys = config["num_key_value_heads"] * head_dim
    prefix = f"blk.{index}."
    tensors.add_norm(prefix + "attn_norm.weight", hidden)
    for name, rows in {"attn_q": queries, "attn_k": keys, "attn_v": keys}.items():
        tensors.add_quantized(f"{prefix}{name}.weight", kind, rows, hidden)
        if biased:
            tensors.add_bias(f"{prefix}{name}.bias", rows)
    tensors.add_quantized(prefix + "attn_output.weight", kind, hidden, queries)
    tensors.add_norm(prefix + "ffn_norm.weight", hidden)
    tensors.add_quantized(prefix + "ffn_gate.weight", kind, intermediate, hidden)
    tensors.add_quantized(prefix + "ffn_up.weight", kind, intermediate, hidden)
    tensors.add_quantized(prefix + "ffn_down.weight", kind, hidden, intermediate)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    kind = {"q4_0": Type.Q4_0, "mxfp4": Type.MXFP4}[sys.argv[2]]
    arch = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}[config["architectures"][0]]
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]

    writer = gguf.GGUFWriter(sys.argv[3], arch)
    add_metadata(writer, config, head_dim)
    tensors = Tensors(writer)
    output = output_type(kind, hidden)
    if config["tie_word_embeddings"]:
        tensors.add_quantized("token_embd.weight", output, vocab, hidden)
    else:
        embedding = Type.Q8_0 if kind == Type.MXFP4 else kind
        tensors.add_quantized("token_embd.weight", embedding, vocab, hidden)
        tensors.add_quantized("output.weight", output, vocab, hidden)
    tensors.add_norm("output_norm.weight", hidden)
    divisors = rope_divisors(config, head_dim)
    if divisors is not None:
        tensors.add_floats("rope_freqs.weight", divisors)
    for index in range(config["num_hidden_layers"]):
        add_layer(tensors, index, kind, config, head_dim, biased=arch == "qwen2")
    tensors.write()


main()
