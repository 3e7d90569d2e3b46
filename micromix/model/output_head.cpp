#include "micromix/model/output_head.h"

#include "micromix/model/decoder_layer.h"

namespace micromix {

OutputHead::OutputHead(const ModelWeights& weights, const kernels::Backend& backend)
    : backend_(backend), norm_(prepare_norm(backend, *weights.final_norm, weights.config)) {
  const LinearWeights* const reader = &weights.lm_head;
  const kernels::InputPlan plan = input_plan(weights.config.quantization, {&reader, 1});
  linear_ = prepare(backend, weights.lm_head, plan);
  plan_ = backend.prepare(plan);
}

void OutputHead::logits(const kernels::Rows& hidden, kernels::Input& input,
                        kernels::Buffer& out) const {
  backend_.set_rmsnorm(input, *plan_, hidden, nullptr, *norm_);
  const kernels::Product product{linear_.get(), &out};
  backend_.multiply({&product, 1}, input);
}

}  // namespace micromix
