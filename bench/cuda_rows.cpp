#include "bench/cuda_rows.h"

#include <algorithm>

#include "bench/cuda_timing.h"
#include "micromix/mx/element.h"
#include "micromix/mx/format.h"

namespace micromix::bench {
namespace {

using kernels::cuda::check;
using mx::Format;

// cudaMemcpy may return earlier, and streams that do not block do not wait for it.
void wait() {
  check(cudaDeviceSynchronize(), "copy");
}

template <typename T>
void upload_rows(const NormalRows<T>& values, int64_t rows, int64_t k, T* device) {
  constexpr int64_t kPart = int64_t{1} << 25;  // values on the host at a time
  const int64_t at_once = std::max<int64_t>(1, kPart / k);
  std::vector<T> part(std::min(rows, at_once) * k);
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    values.copy(row, count, k, part.data());
    check(cudaMemcpy(device + row * k, part.data(), count * k * sizeof(T), cudaMemcpyHostToDevice),
          "copy");
  }
  wait();
}

}  // namespace

NormalMatrix::NormalMatrix(uint64_t seed)
    : bf16_(
          seed, [](float value) { return mx::to_bfloat16(value); },
          [](mx::BFloat16 value) { return mx::to_float(value); }),
      e4m3_(
          seed, [](float value) { return mx::encode(Format::kE4M3, value); },
          [](uint8_t code) { return mx::decode(Format::kE4M3, code); }) {}

void NormalMatrix::upload(Type type, int64_t rows, int64_t k, void* device) const {
  if (type == Type::kBF16) {
    upload_rows(bf16_, rows, k, static_cast<mx::BFloat16*>(device));
  } else {
    upload_rows(e4m3_, rows, k, static_cast<uint8_t*>(device));
  }
}

DeviceRows::DeviceRows(const NormalMatrix& values, NormalMatrix::Type type, int64_t rows, int64_t k)
    : values_(values),
      type_(type),
      rows_(rows),
      k_(k),
      memory_(rows * k * NormalMatrix::bytes_per_value(type)) {
  values.upload(type, rows, k, memory_.data());
}

RotatedRows::RotatedRows(const NormalMatrix& values, NormalMatrix::Type type, int64_t rows,
                         int64_t k, int64_t l2_bytes)
    : first_(values, type, rows, k) {
  for (int64_t copy = 1; copy < cold_copies(first_.bytes(), l2_bytes); ++copy) {
    auto& other = others_.emplace_back(first_.bytes());
    check(cudaMemcpy(other.data(), first_.data(), first_.bytes(), cudaMemcpyDeviceToDevice),
          "copy");
  }
  wait();
}

}  // namespace micromix::bench
