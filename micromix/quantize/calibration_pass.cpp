#include "micromix/quantize/calibration_pass.h"

#include "micromix/model/model.h"

namespace micromix {

CalibrationPass::CalibrationPass(const ModelWeights& weights, std::span<const int32_t> ids,
                                 int64_t length)
    : weights_(weights),
      length_(length),
      samples_(static_cast<int64_t>(ids.size()) / length),
      hidden_(embed(weights, ids)),
      cache_(kernels::reference_backend().make_key_values(attention_shape(weights.config), length)),
      workspace_(kernels::reference_backend()) {}

void CalibrationPass::advance(const InputObserver& observer, const ProgressFunction& progress) {
  const ModelConfig& config = weights_.config;
  const DecoderLayer layer(weights_.layers[next_], config, kernels::reference_backend());
  for (int64_t sample = 0; sample < samples_; ++sample) {
    cache_->clear();
    layer.forward(length_, hidden_.data() + sample * length_ * config.hidden_size, *cache_,
                  workspace_, observer);
    report(progress, next_ * samples_ + sample + 1, config.num_layers * samples_);
  }
  weights_.layers[next_].release();
  ++next_;
}

}  // namespace micromix
