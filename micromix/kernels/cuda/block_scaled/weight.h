// A mixed weight in device memory as operand A of the block-scaled product, in layout.h's order.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/block_scaled/layout.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels::cuda::block_scaled {

class Weight {
 public:
  // Reorders WEIGHT on the device; its bytes need not outlive this. Throws Error where it has more
  // than kMostSegments segments, or memory is short.
  Weight(const MixedWeight& weight, cudaStream_t stream);

  const WeightView& view() const { return view_; }
  int64_t n() const { return view_.n; }
  int64_t k() const { return k_; }
  int64_t bytes() const { return records_.bytes() + bias_.bytes(); }

 private:
  WeightView view_{};
  int64_t k_ = 0;
  DeviceArray<uint8_t> records_;
  DeviceArray<float> bias_;
};

}  // namespace micromix::kernels::cuda::block_scaled
