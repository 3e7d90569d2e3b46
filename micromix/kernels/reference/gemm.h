// FP32 matrix product with the weight decoded on the way: C[m,n] = A[m,k] B[n,k]^T.
//
// B stays as it is stored (BF16, packed MX, …) and is decoded a panel of 16 rows x 512 columns at a
// time into a buffer that stays in the cache while all rows of A pass it, so no FP32 copy of a
// weight ever exists. The inner kernel keeps a 6 x 16 tile of C in registers; it is compiled once
// for each of baseline x86-64, AVX2 with FMA, and AVX-512, and chosen at run time.
#pragma once

#include <cstdint>

namespace micromix::kernels {

// The right operand: rows that can be decoded to FP32.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // out[i] = B[row, column + i] for i < count. Thread-safe.
  virtual void decode(int64_t row, int64_t column, int64_t count, float* out) const = 0;
};

// Rows that are FP32 already: B[row, column] = data[row * stride + column].
class FloatRows final : public RowSource {
 public:
  FloatRows(const float* data, int64_t stride) : data_(data), stride_(stride) {}
  void decode(int64_t row, int64_t column, int64_t count, float* out) const override;

 private:
  const float* data_;
  int64_t stride_;
};

// Columns that the K loop takes at a time; each multiple's partial sum is added to C in order.
inline constexpr int64_t kGemmDepth = 512;

// FP32 additions in the longest chain behind one output: one a product, and one a partial sum.
constexpr int64_t gemm_additions(int64_t k) {
  return k + (k + kGemmDepth - 1) / kGemmDepth;
}

// On the calling thread. The result does not depend on how rows or columns are split over calls.
void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const RowSource& b,
          float* c, int64_t c_stride);

// On all OpenMP threads, with the same result.
void parallel_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride,
                   const RowSource& b, float* c, int64_t c_stride);

}  // namespace micromix::kernels
