// The oracle of the mixed linear (DESIGN section 3): slow, obvious, FP64. Every kernel is tested
// against it by the bound below.
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/kernels/linear.h"

namespace micromix::kernels {

// Quantized rows: per row and channel one unpacked code, per row and block one scale byte. A BF16
// segment (format none) has values instead.
struct QuantizedRows {
  int64_t m = 0;
  InputPlan plan;
  std::vector<uint8_t> codes;   // [m, k]
  std::vector<uint8_t> scales;  // [m, k / 32]
  std::vector<float> values;    // [m, k], BF16 values, permuted
};

// Rounds rows X [m, plan.k] once to BF16, gathers and quantizes them: the oracle of every
// quantizer.
QuantizedRows quantize_rows(const InputPlan& plan, int64_t m, const float* x);

// out[j] = the value of row ROW's channel j, [k]: element times scale, exact where that is a normal
// FP32 number.
void dequantize_row(const QuantizedRows& rows, int64_t row, float* out);

// One output of the oracle: the value y*, not yet rounded, and S = sum |x w| + |bias|.
struct OracleValue {
  double value;
  double magnitude;
};
OracleValue oracle_output(const MixedWeight& weight, const QuantizedRows& rows, int64_t row,
                          int64_t column);

// The largest |y - y*| a kernel may show whose longest chain has ADDITIONS FP32 additions, its
// result rounded to BF16: 2^-8 |y*| + (1 + 2^-8) c 2^-23 S + 2^-133.
double error_bound(const OracleValue& oracle, int64_t additions);

}  // namespace micromix::kernels
