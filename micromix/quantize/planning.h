// The plans of a whole model: which linears are quantized, and along which segments.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "micromix/base/progress.h"
#include "micromix/checkpoint/model_weights.h"
#include "micromix/quantize/options.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

// What happens to one decoder layer.
struct LayerPlan {
  std::array<Plan, kInputRoles.size()> plans;  // empty where no reader is quantized
  std::array<bool, kLinearRoles.size()> quantized{};

  const Plan& of(LinearRole role) const { return plans[static_cast<size_t>(input_of(role))]; }
  bool is_quantized(LinearRole role) const { return quantized[static_cast<size_t>(role)]; }
  // The order that down_proj's input comes in, folded into the rows of gate and up.
  std::span<const int32_t> folded() const {
    if (!is_quantized(LinearRole::kDown)) return {};
    return of(LinearRole::kDown).permutation;
  }
  // The order of ROLE's output rows.
  std::span<const int32_t> row_order(LinearRole role) const {
    return input_of(role) == InputRole::kMlp ? folded() : std::span<const int32_t>{};
  }
};

struct ModelPlan {
  std::vector<LayerPlan> layers;
  Plan lm_head;                            // empty where it stays BF16
  std::vector<std::string> kept;           // linears that stay BF16, for either reason
  std::vector<std::string> not_divisible;  // those of them whose K is not a multiple of 32
  bool exhausted = false;  // the budget is not spent, because no group gains from more bits
  std::optional<double> measured_kl;  // where options.allocation.max_kl asked for one
};

// Plans every layer and the lm_head. STATISTICS may be null for uniform methods only; the budget
// allocation needs their fp4_kl (sensitivity.h), and reads every weight once. Throws Error where
// options.keep holds what is no regular expression.
ModelPlan plan_model(const ModelWeights& weights, const Statistics* statistics,
                     const QuantizeOptions& options, const ProgressFunction& progress);

// Mean bits of the quantized linears' weights, block scales included; 0 where there is none.
double average_bits(const ModelPlan& plan, const ModelWeights& weights);

// One hash of all layers' plans; the lm_head's follows from the options.
std::string plan_hash(const ModelPlan& plan);

// Bytes that the quantized model will take, without headers.
int64_t predicted_bytes(const ModelPlan& plan, const ModelWeights& weights);

}  // namespace micromix
