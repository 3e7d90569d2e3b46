// Random matrices in a GPU's memory, as activations and as weights of cuBLASLt's products.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/normal_rows.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::bench {

// Standard normal values in BF16 and, the same ones, in E4M3; one seed makes one matrix.
class NormalMatrix {
 public:
  explicit NormalMatrix(uint64_t seed);

  enum class Type : uint8_t { kBF16, kE4M3 };
  static int64_t bytes_per_value(Type type) { return type == Type::kBF16 ? 2 : 1; }

  float value(Type type, int64_t row, int64_t column) const {
    return type == Type::kBF16 ? bf16_.value(row, column) : e4m3_.value(row, column);
  }
  // Rows [0, ROWS) of K columns into device memory; waits.
  void upload(Type type, int64_t rows, int64_t k, void* device) const;

 private:
  NormalRows<mx::BFloat16> bf16_;
  NormalRows<uint8_t> e4m3_;
};

// [ROWS, K], row-major.
class DeviceRows {
 public:
  DeviceRows(const NormalMatrix& values, NormalMatrix::Type type, int64_t rows, int64_t k);

  int64_t rows() const { return rows_; }
  int64_t k() const { return k_; }
  int64_t bytes() const { return memory_.bytes(); }
  void* data() const { return memory_.data(); }
  float value(int64_t row, int64_t column) const { return values_.value(type_, row, column); }

 private:
  const NormalMatrix& values_;
  NormalMatrix::Type type_;
  int64_t rows_, k_;
  kernels::cuda::DeviceArray<uint8_t> memory_;
};

// The same with as many copies as cold_copies() says.
class RotatedRows {
 public:
  RotatedRows(const NormalMatrix& values, NormalMatrix::Type type, int64_t rows, int64_t k,
              int64_t l2_bytes);

  const DeviceRows& first() const { return first_; }
  int64_t copies() const { return 1 + static_cast<int64_t>(others_.size()); }
  void* data(int64_t copy) const { return copy == 0 ? first_.data() : others_[copy - 1].data(); }

 private:
  DeviceRows first_;
  std::vector<kernels::cuda::DeviceArray<uint8_t>> others_;
};

}  // namespace micromix::bench
