#include "micromix/model/rope.h"

#include <cmath>
#include <numbers>

namespace micromix {
namespace {

// Llama 3.1: frequencies whose wavelength exceeds the original context are divided by the factor,
// short ones kept, and those between interpolated.
float scale_llama3(const RopeConfig& config, float frequency) {
  const double context = static_cast<double>(config.original_max_position_embeddings);
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength > context / config.low_frequency_factor) {
    return static_cast<float>(frequency / config.factor);
  }
  if (wavelength < context / config.high_frequency_factor) return frequency;
  const double smooth = (context / wavelength - config.low_frequency_factor) /
                        (config.high_frequency_factor - config.low_frequency_factor);
  return static_cast<float>((1.0 - smooth) * frequency / config.factor + smooth * frequency);
}

float scale(const RopeConfig& config, float frequency) {
  switch (config.type) {
    case RopeType::kDefault:
      return frequency;
    case RopeType::kLinear:
      return static_cast<float>(frequency / config.factor);
    case RopeType::kLlama3:
      return scale_llama3(config, frequency);
  }
  return frequency;
}

}  // namespace

Rope::Rope(const RopeConfig& config, int64_t head_dim) : head_dim_(head_dim) {
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    frequencies_.push_back(scale(config, static_cast<float>(std::pow(config.theta, -exponent))));
  }
}

void Rope::prepare(int64_t first, int64_t count, const kernels::Backend& backend,
                   Rotations& rotations) const {
  if (rotations.first == first && rotations.count == count) return;
  const int64_t half = head_dim_ / 2;
  rotations.values.resize(count * head_dim_);
  for (int64_t row = 0; row < count; ++row) {
    float* const cosines = rotations.values.data() + row * head_dim_;
    for (int64_t i = 0; i < half; ++i) {
      // The angle is rounded to FP32 as PyTorch computes it, so that long positions agree with it.
      const float angle = static_cast<float>(first + row) * frequencies_[i];
      cosines[i] = std::cos(angle);
      cosines[half + i] = std::sin(angle);
    }
  }
  rotations.angles->resize(count, head_dim_);
  backend.write(*rotations.angles, rotations.values.data());
  rotations.first = first;
  rotations.count = count;
}

}  // namespace micromix
