// The tensors of a model folder, found, checked against the config and given their roles; nothing
// is copied. BF16 folders and quantized ones read alike.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "micromix/checkpoint/config.h"
#include "micromix/checkpoint/plan.h"
#include "micromix/checkpoint/safetensors.h"

namespace micromix {

// One linear layer [n, k]: dense, or in segments.
struct LinearWeights {
  struct Segment {
    mx::Format format;
    int64_t channels;
    const TensorView* codes;
    const TensorView* scales;
  };

  std::string module;  // "model.layers.0.self_attn.q_proj"
  int64_t n = 0;
  int64_t k = 0;
  const TensorView* dense = nullptr;  // BF16, F16 or F32 [n, k]; null where quantized
  std::vector<Segment> segments;      // in format order; empty where dense
  const TensorView* bias = nullptr;   // [n], or null
  Plan plan;                          // where quantized; down_proj: without its folded permutation
  std::vector<int32_t> folded_perm;   // down_proj only: gate and up rows lie in this order

  bool quantized() const { return dense == nullptr; }
  // Bytes of its weight in the files, without bias and permutation.
  int64_t stored_bytes() const;
  // Gives its pages back to the system.
  void release() const;
};

struct LayerWeights {
  std::array<LinearWeights, kLinearRoles.size()> linears;  // by LinearRole
  const TensorView* attention_norm = nullptr;              // [hidden], input_layernorm
  const TensorView* mlp_norm = nullptr;                    // [hidden], post_attention_layernorm
  const TensorView* q_norm = nullptr;                      // [head_dim], Qwen3 only
  const TensorView* k_norm = nullptr;

  const LinearWeights& operator[](LinearRole role) const {
    return linears[static_cast<size_t>(role)];
  }
  void release() const;
};

struct ModelWeights {
  // Throws Error where a tensor is missing, superfluous, or of another dtype or shape than the
  // config says; where a permutation is none; where linears that share an input disagree about it.
  explicit ModelWeights(const std::filesystem::path& model);

  ModelConfig config;
  TensorStore store;
  const TensorView* embedding = nullptr;  // [vocab, hidden]
  const TensorView* final_norm = nullptr;
  LinearWeights lm_head;  // the embedding where tied
  std::vector<LayerWeights> layers;
};

// Any BF16, F16 or F32 tensor as FP32.
std::vector<float> to_floats(const TensorView& tensor);

// sum N K_F (bits_F + 0.25) / sum N K over the quantized linears (0 where none is), and the bits of
// all of the files' bytes a parameter.
struct ModelSize {
  double average_bits = 0;
  double layer_bits = 0;  // average_bits of the decoder layers alone, without the lm_head
  double bits_per_parameter = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;  // of the safetensors files
};
ModelSize measure(const ModelWeights& weights);

}  // namespace micromix
