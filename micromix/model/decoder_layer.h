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

// A norm of the model, made ready.
std::unique_ptr<kernels::Norm> prepare_norm(const kernels::Backend& backend, const TensorView& gain,
                                            const ModelConfig& config);

// A linear, made ready for inputs of PLAN; the tensors must outlive it.
std::unique_ptr<kernels::Linear> prepare(const kernels::Backend& backend,
                                         const LinearWeights& weights,
                                         const kernels::InputPlan& plan);

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

  // HIDDEN [m, hidden_size] are the rows at positions cache.length()..., to which ADDEND is still
  // to be added unless it is null: what the layer before left in WORKSPACE. The layer adds it and
  // its attention's output, appends keys and values to CACHE, which must have room, and leaves its
  // last term in workspace.output, for the next layer or the caller to add. An OBSERVER needs plans
  // that keep rows.
  void forward(const kernels::Rows& hidden, const kernels::Buffer* addend,
               kernels::KeyValues& cache, Workspace& workspace,
               const InputObserver& observer = nullptr) const;

 private:
  const kernels::Linear& linear(LinearRole role) const {
    return *linears_[static_cast<size_t>(role)];
  }
  const kernels::Plan& plan(InputRole role) const { return *plans_[static_cast<size_t>(role)]; }
  void attention(const kernels::Rows& hidden, const kernels::Buffer* addend,
                 kernels::KeyValues& cache, Workspace& workspace,
                 const InputObserver& observer) const;
  void mlp(const kernels::Rows& hidden, Workspace& workspace, const InputObserver& observer) const;
  void multiply(LinearRole role, const kernels::Input& input, kernels::Buffer& y) const;
  void observe(const InputObserver& observer, InputRole role, int64_t m,
               const kernels::Input& input) const;

  const kernels::Backend& backend_;
  Rope rope_;
  std::array<std::unique_ptr<kernels::Linear>, kLinearRoles.size()> linears_;
  std::array<std::unique_ptr<kernels::Plan>, kInputRoles.size()> plans_;
  std::unique_ptr<kernels::Norm> attention_norm_, mlp_norm_;
  std::unique_ptr<kernels::Norm> q_norm_, k_norm_;  // null: none (all but Qwen3)
};

}  // namespace micromix
