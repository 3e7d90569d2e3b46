// Attention in FP32.
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/kernels/attention.h"

namespace micromix::kernels {

// Values lie transposed, so that both products of attention run over rows.
class FloatKeyValues final : public KeyValues {
 public:
  FloatKeyValues(const AttentionShape& shape, int64_t capacity);

  // [length, head_dim], row-major.
  const float* keys(int64_t head) const {
    return keys_.data() + head * capacity() * shape().head_dim;
  }
  // [head_dim, length], rows CAPACITY apart.
  const float* values(int64_t head) const {
    return values_.data() + head * shape().head_dim * capacity();
  }

 private:
  void store(const Buffer& keys, const Buffer& values) override;

  std::vector<float> keys_;
  std::vector<float> values_;
};

// See Backend::attend.
void attend_float(const FloatKeyValues& cache, int64_t m, const float* q, float* out);

}  // namespace micromix::kernels
