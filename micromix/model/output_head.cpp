#include "micromix/model/output_head.h"

#include "micromix/model/decoder_layer.h"

namespace micromix {

OutputHead::OutputHead(const ModelWeights& weights, const kernels::Backend& backend)
    : backend_(backend),
      norm_(prepare_norm(backend, *weights.final_norm, weights.config)),
      linear_(prepare(backend, weights.lm_head)) {
  const LinearWeights* const reader = &weights.lm_head;
  plan_ = backend.prepare(input_plan(weights.config.quantization, {&reader, 1}));
}

void OutputHead::logits(const kernels::Rows& hidden, kernels::Input& input,
                        kernels::Buffer& out) const {
  backend_.set_rmsnorm(input, *plan_, hidden, nullptr, *norm_);
  const kernels::Product product{linear_.get(), &out};
  backend_.multiply({&product, 1}, input);
}

}  // namespace micromix
