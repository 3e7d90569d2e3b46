// Baselines outside the MX formats, simulated: weights and activations are rounded to the values
// the format has, and multiplied in FP32.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "micromix/kernels/linear.h"

namespace micromix {

enum class Baseline : uint8_t {
  kNvfp4,  // E2M1, an E4M3 scale per 16 values, an FP32 scale per tensor
  kInt4,   // symmetric (-7..7), a BF16 scale per 128 values
  kInt8,   // symmetric (-127..127), an FP32 scale per weight row and per token
};

// "nvfp4", "int4", "int8".
std::string_view name(Baseline baseline);
std::optional<Baseline> parse_baseline(std::string_view text);

// Bits a value, with the scales of its blocks: 4.5, 4.125, 8.
double bits_per_value(Baseline baseline);

// Rounds X [m, k] in place; values are BF16 or FP32, finite. Blocks run along k; the last of a row
// may be shorter. The scale per tensor is that of all of X.
void fake_quantize(Baseline baseline, int64_t m, int64_t k, float* x);

// A backend whose dense linears multiply fake-quantized weights with inputs that were rounded to
// BF16 and fake-quantized, and give BF16 results. BACKEND does the work and must outlive it.
// Weights are kept as FP32.
std::unique_ptr<kernels::Backend> fake_quantization_backend(Baseline baseline,
                                                            const kernels::Backend& backend);

}  // namespace micromix
