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

// Row ROW of a dense weight as FP32.
std::vector<float> weight_row(const LinearWeights& linear, int64_t row);

// A dense weight as FP32 [n, k], its channels in PLAN's order; row i is row ROW_ORDER[i] of the
// weight (empty: as it is). Throws Error naming the tensor where it holds NaN or Inf.
std::vector<float> permuted_weight(const LinearWeights& linear, const Plan& plan,
                                   std::span<const int32_t> row_order);

// A weight of all-zero codes and scales along PLAN.
QuantizedLinear empty_quantized_linear(int64_t n, const Plan& plan);

// Quantizes a dense weight along PLAN, rounding to nearest; ROW_ORDER and errors as for
// permuted_weight. Threaded over rows.
QuantizedLinear quantize_linear(const LinearWeights& linear, const Plan& plan,
                                std::span<const int32_t> row_order, mx::ScaleRule rule);

}  // namespace micromix
