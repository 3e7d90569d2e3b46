// Linears in BF16 by cuBLASLt: BF16 operands, FP32 accumulation.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels::cuda {

// cuBLASLt and the memory that its kernels may use; one per stream.
class Blas {
 public:
  Blas();
  ~Blas();
  Blas(const Blas&) = delete;

  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_.data(); }
  size_t workspace_bytes() const { return static_cast<size_t>(workspace_.size()); }

 private:
  cublasLtHandle_t handle_ = nullptr;
  DeviceArray<std::byte> workspace_;
};

class DenseLinear final : public Linear {
 public:
  // Copies WEIGHT to the device, rounded to BF16 where it is wider, and so its bias.
  explicit DenseLinear(const DenseWeight& weight);
  ~DenseLinear() override;

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }

  // Y [m, n] = X [m, k] times the weight, plus its bias: FP32, or rounded once to BF16.
  // Asynchronous on STREAM.
  void multiply(int64_t m, const __nv_bfloat16* x, float* y, const Blas& blas,
                cudaStream_t stream) const {
    multiply(m, x, y, CUDA_R_32F, blas, stream);
  }
  void multiply(int64_t m, const __nv_bfloat16* x, __nv_bfloat16* y, const Blas& blas,
                cudaStream_t stream) const {
    multiply(m, x, y, CUDA_R_16BF, blas, stream);
  }

 private:
  struct Matmul;  // what cuBLASLt needs to know of a product

  void multiply(int64_t m, const __nv_bfloat16* x, void* y, cudaDataType_t type, const Blas& blas,
                cudaStream_t stream) const;
  const Matmul& matmul(int64_t m, cudaDataType_t type, const Blas& blas) const;

  int64_t n_, k_;
  DeviceArray<__nv_bfloat16> weight_;  // [n, k]
  DeviceArray<__nv_bfloat16> bias_;    // [n], or empty
  DeviceArray<float> wide_bias_;       // the same, for FP32 results
  // Chosen once for a number of rows and a type of results.
  mutable std::map<std::pair<int64_t, cudaDataType_t>, std::unique_ptr<Matmul>> matmuls_;
};

}  // namespace micromix::kernels::cuda
