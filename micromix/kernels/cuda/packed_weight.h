// A mixed weight in device memory, in packed_layout.h's order.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/packed_layout.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels::cuda {

class PackedWeight {
 public:
  // Reorders WEIGHT on the device; its bytes need not outlive this. Throws Error where it has more
  // than kMostSegments segments, or memory is short.
  PackedWeight(const MixedWeight& weight, cudaStream_t stream);

  const WeightView& view() const { return view_; }
  int64_t n() const { return view_.n; }
  int64_t k() const { return k_; }
  int64_t bytes() const {
    return records_.bytes() + factors_.bytes() + bias_.bytes() + oracle_rows_.bytes() +
           oracle_scales_.bytes();
  }

 private:
  void collect_oracle_rows(const MixedWeight& weight);

  WeightView view_{};
  int64_t k_ = 0;
  DeviceArray<uint8_t> records_;
  DeviceArray<float> factors_, bias_;
  DeviceArray<int32_t> oracle_rows_;
  DeviceArray<uint8_t> oracle_scales_;
};

// Bytes of the weight's largest record.
int largest_record(const WeightView& weight);

}  // namespace micromix::kernels::cuda
