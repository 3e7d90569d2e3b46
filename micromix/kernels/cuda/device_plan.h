// A plan's activation side, on the current device.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels::cuda {

class DevicePlan {
 public:
  // Copies the permutation and waits. Throws Error where the plan has more than kMostSegments
  // segments or the device's memory is out.
  explicit DevicePlan(const InputPlan& plan);

  const PlanView& view() const { return view_; }

 private:
  DeviceArray<int32_t> permutation_;
  PlanView view_ = {};
};

}  // namespace micromix::kernels::cuda
