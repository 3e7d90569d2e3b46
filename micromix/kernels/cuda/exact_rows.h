// Device memory of exact rows.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"

namespace micromix::kernels::cuda {

class ExactRowsMemory {
 public:
  // Room for M rows of PLAN; uninitialized. Grows to the most asked for and keeps that.
  const ExactRows& resize(const PlanView& plan, int64_t m) {
    const int64_t blocks = plan.blocks * m;
    rows_ = {m, values_.resize(blocks * mx::kBlockSize), shifts_.resize(blocks),
             special_.resize(m)};
    return rows_;
  }
  const ExactRows& view() const { return rows_; }

 private:
  DeviceArray<__nv_bfloat16> values_;
  DeviceArray<int8_t> shifts_;
  DeviceArray<uint8_t> special_;
  ExactRows rows_{};
};

}  // namespace micromix::kernels::cuda
