// Device memory of code rows.
#pragma once

#include <cassert>
#include <cstdint>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"

namespace micromix::kernels::cuda {

class CodeRowsMemory {
 public:
  // Room for M rows of PLAN, none of whose segments is BF16; uninitialized. Grows to the most asked
  // for and keeps that.
  const CodeRows& resize(const PlanView& plan, int64_t m) {
    int64_t bytes = 0;
    for (int s = 0; s < plan.segment_count; ++s) bytes += segment_bytes(plan.segments[s], m);
    uint8_t* codes = codes_.resize(bytes);
    rows_.m = m;
    for (int s = 0; s < plan.segment_count; ++s) {
      assert(!plan.segments[s].bf16);
      rows_.segments[s] = {plan.segments[s].format, codes};
      codes += segment_bytes(plan.segments[s], m);
    }
    rows_.scales = scales_.resize(plan.blocks * padded_rows(m));
    return rows_;
  }
  const CodeRows& view() const { return rows_; }

 private:
  static int64_t segment_bytes(const PlanView::Segment& segment, int64_t m) {
    return (segment.channels + kChunk - 1) / kChunk * m * chunk_bytes(segment.format);
  }

  DeviceArray<uint8_t> codes_, scales_;
  CodeRows rows_{};
};

}  // namespace micromix::kernels::cuda
