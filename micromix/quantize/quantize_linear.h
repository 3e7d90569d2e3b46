// One linear's weight to segments of MX codes, round to nearest.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/plan.h"
#include "micromix/kernels/linear.h"
#include "micromix/mx/scale.h"

namespace micromix {

// A quantized weight that owns its bytes, in the checkpoint's layout (docs/format.md).
struct QuantizedLinear {
  struct Segment {
    mx::Format format;
    int64_t channels;
    std::vector<uint8_t> codes;   // [n, channels * bits / 8]
    std::vector<uint8_t> scales;  // [n, channels / 32]
  };
  int64_t n = 0;
  int64_t k = 0;
  std::vector<Segment> segments;  // in format order, none empty

  // The kernels' view; without bias. Valid as long as this.
  kernels::MixedWeight view() const;
};

// Quantizes a dense weight along PLAN. Row i of the result is row ROW_ORDER[i] of the weight
// (empty: as it is). Threaded over rows. Throws Error naming the tensor where it holds NaN or Inf.
QuantizedLinear quantize_linear(const LinearWeights& linear, const Plan& plan,
                                std::span<const int32_t> row_order, mx::ScaleRule rule);

}  // namespace micromix
