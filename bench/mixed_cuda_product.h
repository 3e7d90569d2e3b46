// The own product on a GPU, as benchmarks time it.
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
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/device_plan.h"
#include "micromix/kernels/cuda/packed_weight.h"
#include "micromix/kernels/cuda/product.h"
#include "micromix/kernels/reference/oracle.h"

namespace micromix::bench {

// A random weight of one plan in as many copies as keep it out of the L2 cache, and the random plan
// of its inputs.
class MixedCudaWeight {
 public:
  MixedCudaWeight(const std::string& plan, const CudaShape& shape, int64_t l2_bytes,
                  cudaStream_t stream);

  const std::string& plan_name() const { return plan_name_; }
  const kernels::InputPlan& plan() const { return plan_; }
  const kernels::cuda::PlanView& plan_view() const { return device_plan_.view(); }
  const kernels::MixedWeight& host() const { return host_.weight; }
  const kernels::cuda::PackedWeight& copy(int64_t i) const { return copies_[i]; }
  int64_t copies() const { return static_cast<int64_t>(copies_.size()); }
  int64_t bytes() const { return copies_.front().bytes(); }  // on the GPU, a copy

 private:
  std::string plan_name_;
  RandomWeight host_;
  kernels::InputPlan plan_;
  kernels::cuda::DevicePlan device_plan_;
  std::vector<kernels::cuda::PackedWeight> copies_;
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
  kernels::cuda::DeviceArray<__nv_bfloat16> values_;
  kernels::cuda::DeviceArray<int8_t> shifts_;
  kernels::cuda::DeviceArray<uint8_t> special_;
  kernels::cuda::ExactRows rows_;
  kernels::cuda::Workspace workspace_;
};

}  // namespace micromix::bench
