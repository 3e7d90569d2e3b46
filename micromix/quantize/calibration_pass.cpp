#include "micromix/quantize/calibration_pass.h"

#include "micromix/model/model.h"

namespace micromix {

CalibrationPass::CalibrationPass(const ModelWeights& weights, std::span<const int32_t> ids,
                                 int64_t length)
    : weights_(weights),
      length_(length),
      samples_(static_cast<int64_t>(ids.size()) / length),
      cache_(kernels::reference_backend().make_key_values(attention_shape(weights.config), length)),
      workspace_(kernels::reference_backend()),
      hidden_(kernels::reference_backend().buffer(kernels::BufferType::kFloat, std::ssize(ids),
                                                  weights.config.hidden_size,
                                                  embed(weights, ids).data())) {}

void CalibrationPass::advance(const InputObserver& observer, const ProgressFunction& progress) {
  const ModelConfig& config = weights_.config;
  const kernels::Backend& backend = kernels::reference_backend();
  const DecoderLayer layer(weights_.layers[next_], config, backend);
  for (int64_t sample = 0; sample < samples_; ++sample) {
    cache_->clear();
    const kernels::Rows hidden(*hidden_, sample * length_, length_);
    layer.forward(hidden, nullptr, *cache_, workspace_, observer);
    backend.add(hidden, *workspace_.output);
    report(progress, next_ * samples_ + sample + 1, config.num_layers * samples_);
  }
  weights_.layers[next_].release();
  ++next_;
}

}  // namespace micromix
