// The own products on a GPU, as benchmarks time them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "bench/cuda_cases.h"
#include "bench/cuda_rows.h"
#include "bench/random_weights.h"
#include "micromix/kernels/cuda/backend.h"
#include "micromix/kernels/cuda/block_scaled/product.h"
#include "micromix/kernels/cuda/code_rows.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/device_plan.h"
#include "micromix/kernels/cuda/exact_rows.h"
#include "micromix/kernels/cuda/packed_weight.h"
#include "micromix/kernels/cuda/product.h"
#include "micromix/kernels/reference/oracle.h"

namespace micromix::bench {

// A random weight of one plan, prepared for one of the products, in as many copies as keep it out
// of the L2 cache; and the random plan of its inputs.
class MixedCudaWeight {
 public:
  MixedCudaWeight(const std::string& plan, kernels::CudaProducts product, const CudaShape& shape,
                  int64_t l2_bytes, cudaStream_t stream);

  const std::string& plan_name() const { return plan_name_; }
  kernels::CudaProducts product() const { return product_; }
  const kernels::InputPlan& plan() const { return plan_; }
  const kernels::cuda::PlanView& plan_view() const { return device_plan_.view(); }
  const kernels::MixedWeight& host() const { return host_.weight; }
  // Of those that the product takes.
  const kernels::cuda::PackedWeight& exact(int64_t copy) const { return exact_[copy]; }
  const kernels::cuda::block_scaled::Weight& block_scaled(int64_t copy) const {
    return block_scaled_[copy];
  }
  int64_t copies() const { return static_cast<int64_t>(exact_.size() + block_scaled_.size()); }
  int64_t bytes() const {  // on the GPU, a copy
    return exact_.empty() ? block_scaled_.front().bytes() : exact_.front().bytes();
  }

 private:
  std::string plan_name_;
  kernels::CudaProducts product_;
  RandomWeight host_;
  kernels::InputPlan plan_;
  kernels::cuda::DevicePlan device_plan_;
  // One of them is empty.
  std::vector<kernels::cuda::PackedWeight> exact_;
  std::vector<kernels::cuda::block_scaled::Weight> block_scaled_;
};

class MixedCudaProduct {
 public:
  // X [m or more rows, k] in BF16 is quantized here. What is passed must outlive this.
  MixedCudaProduct(const MixedCudaWeight& weight, const DeviceRows& x, int64_t m, __nv_bfloat16* y,
                   cudaStream_t stream);

  // Enqueues the product with one copy of the weight.
  void multiply(int64_t copy, bool overlap);

  // Random outputs against the oracle; every copy, a second run and overlapping launches against
  // the first outputs. Throws Error.
  void check();

  const MixedCudaWeight& weight() const { return weight_; }

 private:
  void quantize();
  void run(const std::vector<int64_t>& copies, bool overlap, std::vector<uint16_t>& y);
  void check_outputs(std::span<const uint16_t> y) const;
  std::string where() const;

  const MixedCudaWeight& weight_;
  const DeviceRows& x_;
  int64_t m_;
  __nv_bfloat16* y_;
  cudaStream_t stream_;
  // The exact product's.
  kernels::cuda::ExactRowsMemory exact_;
  kernels::cuda::Workspace workspace_;
  // The block-scaled product's.
  kernels::cuda::CodeRowsMemory codes_;
  kernels::cuda::block_scaled::Instructions instructions_{};
};

}  // namespace micromix::bench
