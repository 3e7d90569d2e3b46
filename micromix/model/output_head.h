// The end of a model: final norm and lm_head.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/kernels/linear.h"

namespace micromix {

class OutputHead {
 public:
  // WEIGHTS and BACKEND must outlive it.
  OutputHead(const ModelWeights& weights, const kernels::Backend& backend);

  // OUT [m, vocab_size] = logits of hidden states [m, hidden_size]. INPUT is one of the backend's.
  void logits(int64_t m, const float* hidden, kernels::Input& input, float* out) const;

 private:
  const ModelConfig& config_;
  const kernels::Backend& backend_;
  std::vector<float> norm_;
  kernels::InputPlan plan_;
  std::unique_ptr<kernels::Linear> linear_;
};

}  // namespace micromix
