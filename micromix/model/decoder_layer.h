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
#include "micromix/model/rope.h"
#include "micromix/model/workspace.h"

namespace micromix {

// Sees each distinct linear input of a layer, [m, k] FP32, before it is rounded or quantized.
using InputObserver = std::function<void(InputRole role, int64_t m, std::span<const float> rows)>;

// The kernels' view of a stored matrix.
kernels::DenseWeight dense_view(const TensorView& tensor, std::vector<float> bias = {});

kernels::AttentionShape attention_shape(const ModelConfig& config);

// The same of a linear, made ready; the tensors must outlive it.
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
  // layer's output, and their keys and values appended to CACHE, which must have room. An OBSERVER
  // needs plans that keep rows.
  void forward(int64_t m, float* hidden, kernels::KeyValues& cache, Workspace& workspace,
               const InputObserver& observer = nullptr) const;

 private:
  const kernels::Linear& linear(LinearRole role) const {
    return *linears_[static_cast<size_t>(role)];
  }
  const kernels::InputPlan& plan(InputRole role) const { return plans_[static_cast<size_t>(role)]; }
  void attention(int64_t m, float* hidden, kernels::KeyValues& cache, Workspace& workspace,
                 const InputObserver& observer) const;
  void mlp(int64_t m, float* hidden, Workspace& workspace, const InputObserver& observer) const;
  // Adds the product of ROLE's linear and WORKSPACE's input to HIDDEN.
  void add_product(LinearRole role, int64_t m, Workspace& workspace, float* hidden) const;
  // RMSNorm over each head's vector (Qwen3), where GAIN is not empty, then rope.
  void place_heads(const Rotations& rotations, int64_t heads, std::span<const float> gain,
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
