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

  // Logits [m, vocab_size] of hidden states [m, hidden_size].
  std::vector<float> logits(int64_t m, const float* hidden) const;

 private:
  const ModelConfig& config_;
  const kernels::Backend& backend_;
  std::vector<float> norm_;
  kernels::InputPlan plan_;
  std::unique_ptr<kernels::Linear> linear_;
};

}  // namespace micromix
