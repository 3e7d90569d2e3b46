#include "micromix/model/output_head.h"

#include "micromix/model/decoder_layer.h"

namespace micromix {

OutputHead::OutputHead(const ModelWeights& weights, const kernels::Backend& backend)
    : config_(weights.config),
      backend_(backend),
      norm_(to_floats(*weights.final_norm)),
      linear_(prepare(backend, weights.lm_head)) {
  const LinearWeights* const reader = &weights.lm_head;
  plan_ = input_plan(config_.quantization, {&reader, 1});
}

void OutputHead::logits(int64_t m, const float* hidden, kernels::Input& input, float* out) const {
  backend_.set_rmsnorm(input, plan_, m, hidden, norm_, static_cast<float>(config_.rms_norm_eps));
  backend_.multiply(*linear_, input, out);
}

}  // namespace micromix
