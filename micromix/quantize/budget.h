// The budget allocation: every channel group of every input may take any format; one price of a bit
// for the whole model meets a target of average bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "micromix/checkpoint/plan.h"
#include "micromix/quantize/harm.h"

namespace micromix {

// One input that takes part.
struct BudgetInput {
  std::vector<int32_t> order;      // [K], ascending mean |x|
  std::vector<FormatHarms> harms;  // a group, in ORDER
  double weight = 1;  // what a unit of harm costs the model: KL(all FP4) / harm(all FP4)
  int64_t rows = 0;   // N, summed over the linears that read the input
};

struct BudgetResult {
  std::vector<Plan> plans;  // one an input
  double average_bits = 0;
  double predicted_kl = 0;  // sum of weight * harm
  bool exhausted = false;   // no group gains from more bits, so some of the budget is left
};

// Minimizes the sum of weight * harm over the plans whose average bits are at most BITS: groups
// move along the lower convex hull of (bits, harm), the steps that save most harm a bit first,
// until the budget is spent. That is the Lagrangian solution for the last step's price, plus the
// steps that still fit. BITS must be at least FP4's. Channels within a format stay in ascending
// order.
BudgetResult allocate_budget(std::span<const BudgetInput> inputs, int64_t channel_group,
                             double bits);

}  // namespace micromix
