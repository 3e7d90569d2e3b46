#include "micromix/kernels/reference/dense.h"

#include <cstring>

#include "micromix/mx/bfloat16.h"

namespace micromix::kernels {
namespace {

// Checkpoints need not align their data.
template <typename T>
T load(const DenseWeight& weight, int64_t index) {
  T value;
  std::memcpy(&value, weight.data.data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

void decode_dense(const DenseWeight& weight, int64_t row, int64_t column, int64_t count,
                  float* out) {
  const int64_t at = row * weight.k + column;
  switch (weight.type) {
    case DenseType::kBF16:
      for (int64_t i = 0; i < count; ++i) out[i] = mx::to_float(load<mx::BFloat16>(weight, at + i));
      break;
    case DenseType::kF16:
      for (int64_t i = 0; i < count; ++i)
        out[i] = mx::half_to_float(load<uint16_t>(weight, at + i));
      break;
    case DenseType::kF32:
      for (int64_t i = 0; i < count; ++i) out[i] = load<float>(weight, at + i);
      break;
  }
}

}  // namespace micromix::kernels
