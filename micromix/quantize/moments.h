// Second moments of a linear's quantized input, over all calibration tokens: what GPTQ works on.
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/kernels/linear.h"

namespace micromix {

// Gathers X_q^T X_q, X_q being the input after the plan's gather and quantization; [k, k]
// row-major, channels in the plan's order. FP32 sums: their errors stay far below GPTQ's damping of
// 1 %; what is sensitive, the factorization, is FP64.
class InputMoments {
 public:
  // PLAN as the kernels take it; it must have segments.
  explicit InputMoments(kernels::InputPlan plan);

  // ROWS [m, k] in the model's channel order, before rounding.
  void add(int64_t m, const float* rows);

  int64_t k() const { return plan_.k; }
  // Symmetric; only elements [i][j] with i <= j are set.
  const std::vector<float>& second() const { return second_; }

 private:
  kernels::InputPlan plan_;
  std::vector<float> second_;
};

}  // namespace micromix
