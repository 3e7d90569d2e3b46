// One decoder layer of the Llama family, made ready to run on a backend.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/kernels/linear.h"
#include "micromix/model/kv_cache.h"
#include "micromix/model/rope.h"

namespace micromix {

// Sees each distinct linear input of a layer, [m, k] FP32, before it is rounded or quantized.
using InputObserver = std::function<void(InputRole role, int64_t m, std::span<const float> rows)>;

// The kernels' view of stored weights; the tensors must outlive it.
std::unique_ptr<kernels::Linear> prepare(const kernels::Backend& backend,
                                         const LinearWeights& weights);

// How the readers of an input want it: QUANTIZATION's formats along the plan of those of READERS
// that are quantized (they agree on it); dense where none is.
kernels::InputPlan input_plan(const std::optional<QuantizationConfig>& quantization,
                              std::span<const LinearWeights* const> readers);

class DecoderLayer {
 public:
  // WEIGHTS' tensors and BACKEND must outlive it.
  DecoderLayer(const LayerWeights& weights, const ModelConfig& config,
               const kernels::Backend& backend);

  // Puts another weight, and the plan of the input it reads, in the place of ROLE's. The other
  // readers of that input must be replaced by weights of the same plan.
  void replace(LinearRole role, kernels::InputPlan plan, std::unique_ptr<kernels::Linear> linear);

  // HIDDEN [m, hidden_size] are the rows at positions cache.length()...; they are replaced by the
  // layer's output, and their keys and values appended to CACHE, which must have room.
  void forward(int64_t m, float* hidden, KvLayer& cache,
               const InputObserver& observer = nullptr) const;

 private:
  std::vector<float> multiply(LinearRole role, const kernels::Input& input, int64_t m) const;
  void attention(int64_t m, float* hidden, KvLayer& cache, const InputObserver& observer) const;
  void mlp(int64_t m, float* hidden, const InputObserver& observer) const;
  // RMSNorm over each head's vector (Qwen3), where GAIN is not empty, then rope.
  void place_heads(int64_t m, int64_t heads, int64_t position, std::span<const float> gain,
                   float* x) const;
  void observe(const InputObserver& observer, InputRole role, int64_t m,
               const kernels::Input& input) const;

  const ModelConfig& config_;
  const kernels::Backend& backend_;
  Rope rope_;
  std::array<std::unique_ptr<kernels::Linear>, kLinearRoles.size()> linears_;
  std::array<kernels::InputPlan, kInputRoles.size()> plans_;
  std::vector<float> attention_norm_, mlp_norm_, q_norm_, k_norm_;
};

}  // namespace micromix
