// cuBLASLt's matrix product y[m,n] = x[m,k] w[n,k]^T on a GPU, the baseline: operands in E4M3 with
// scale 1 or in BF16, sums in FP32, outputs in BF16.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "bench/cuda_rows.h"
#include "micromix/kernels/cuda/device.h"

namespace micromix::bench {

enum class CublasLtType : uint8_t {
  kFp8Fast,  // E4M3; accumulation as the tensor cores do it
  kFp8Slow,  // E4M3; sums moved to FP32 registers now and then
  kBF16,
};
inline constexpr CublasLtType kCublasLtTypes[] = {CublasLtType::kFp8Fast, CublasLtType::kFp8Slow,
                                                  CublasLtType::kBF16};
std::string_view name(CublasLtType type);

// cuBLASLt's handle, and the workspace of products that run one after another.
class CublasLt {
 public:
  static constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_.data(); }
  static std::string version();

 private:
  cublasLtHandle_t handle_ = nullptr;
  kernels::cuda::DeviceArray<uint8_t> workspace_{kWorkspaceBytes};
};

class CublasLtMatmul {
 public:
  // The fastest of the algorithms that cuBLASLt proposes for the shape, each tried on weights that
  // come from memory. Its outputs are checked. What is passed must outlive this; Y has room for as
  // many rows as X. Throws Error where a product is wrong or there is none.
  CublasLtMatmul(const CublasLt& library, CublasLtType type, const RotatedRows& weight,
                 const DeviceRows& x, int64_t m, __nv_bfloat16* y, cudaStream_t stream);

  // Enqueues the product with one copy of the weight.
  void multiply(int64_t copy) const;

  // Its configuration, as cuBLASLt numbers it.
  std::string algorithm() const;
  int algorithms_tried() const { return tried_; }

 private:
  template <auto kDestroy>
  struct Destroyer {
    void operator()(auto* pointer) const { kDestroy(pointer); }
  };
  using Operation =
      std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroyer<cublasLtMatmulDescDestroy>>;
  using Layout =
      std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroyer<cublasLtMatrixLayoutDestroy>>;

  void describe();
  bool choose_algorithm();
  void check() const;
  cublasStatus_t enqueue(const cublasLtMatmulAlgo_t& algorithm, int64_t copy) const;
  double try_algorithm(const cublasLtMatmulAlgo_t& algorithm) const;
  std::string where() const;

  const CublasLt& library_;
  CublasLtType type_;
  const RotatedRows& weight_;
  const DeviceRows& x_;
  int64_t m_;
  __nv_bfloat16* y_;
  cudaStream_t stream_;
  Operation operation_;
  Layout weight_layout_, x_layout_, y_layout_;
  cublasLtMatmulAlgo_t algorithm_;
  int tried_ = 0;
};

}  // namespace micromix::bench
