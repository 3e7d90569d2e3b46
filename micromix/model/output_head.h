// The end of a model: final norm and lm_head.
#pragma once

#include <memory>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/kernels/linear.h"

namespace micromix {

class OutputHead {
 public:
  // WEIGHTS and BACKEND must outlive it.
  OutputHead(const ModelWeights& weights, const kernels::Backend& backend);

  // OUT [m, vocab_size] = logits of hidden states [m, hidden_size]. INPUT is one of the backend's,
  // and so is OUT.
  void logits(const kernels::Rows& hidden, kernels::Input& input, kernels::Buffer& out) const;

 private:
  const kernels::Backend& backend_;
  std::unique_ptr<kernels::Norm> norm_;
  std::unique_ptr<kernels::Plan> plan_;
  std::unique_ptr<kernels::Linear> linear_;
};

}  // namespace micromix
