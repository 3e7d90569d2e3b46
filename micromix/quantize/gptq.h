// GPTQ (Frantar et al., arXiv 2210.17323) over a mixed plan: weights are rounded channel by
// channel, and what each rounding does to the outputs is fed back into the channels still to come.
#pragma once

#include <span>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/plan.h"
#include "micromix/mx/scale.h"
#include "micromix/quantize/moments.h"
#include "micromix/quantize/quantize_linear.h"

namespace micromix {

// The factor that feeds errors back, made once for the linears that share an input.
//
// With H = X_q^T X_q + damping = L L^T, the output error ||X_q (W - Q)^T||^2 is the sum over
// channels t of L[t][t]^2 (w'_t - q_t)^2, where w'_t = w_t + sum over s > t of (w_s - q_s) L[s][t]
// / L[t][t]: a channel can be rounded for itself once those after it are. (This form is LDLQ of
// Chee et al., arXiv 2307.13304, which equals GPTQ and needs no inverse.) The order here is the
// plan's with its formats reversed: going backwards, FP4 comes first and the wider formats absorb
// its errors, and within a format the largest channels come first.
class GptqFactor {
 public:
  // PLAN is the one MOMENTS were gathered along. Channels that are always zero and linearly
  // dependent ones are damped until the factorization succeeds. Throws
  // Error where the moments have left FP32's range.
  GptqFactor(const InputMoments& moments, const Plan& plan);

  int64_t k() const { return static_cast<int64_t>(position_.size()); }
  // Position in the plan of the t-th channel here; blocks of 32 stay blocks.
  const std::vector<int32_t>& position() const { return position_; }
  // L[s][t] / L[t][t] for s > t, else 0; [k, k] row-major.
  const std::vector<float>& feedback() const { return feedback_; }
  // L[t][t]^2: what a squared error of the t-th channel costs once its feedback is spent; [k].
  const std::vector<float>& cost() const { return cost_; }

 private:
  std::vector<int32_t> position_;
  std::vector<float> feedback_;
  std::vector<float> cost_;
};

// quantize_linear with error feedback. A block's scale is chosen when the block is reached: RULE's,
// or a power of two above or below it where the block then costs less. Throws Error as
// quantize_linear does.
QuantizedLinear quantize_linear_gptq(const LinearWeights& linear, const Plan& plan,
                                     std::span<const int32_t> row_order, mx::ScaleRule rule,
                                     const GptqFactor& factor);

}  // namespace micromix
