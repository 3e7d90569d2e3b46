#include "micromix/quantize/budget.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/testing.h"

namespace micromix {
namespace {

BudgetInput random_input(std::mt19937& random, int64_t channels, int64_t group) {
  std::uniform_real_distribution<double> uniform;
  BudgetInput input;
  input.order.resize(channels);
  std::iota(input.order.rbegin(), input.order.rend(), 0);
  input.rows = 32 * (1 + static_cast<int64_t>(random() % 8));
  input.weight = 0.1 + uniform(random);
  for (int64_t begin = 0; begin < channels; begin += group) {
    const double size = std::exp(4 * uniform(random));
    input.harms.push_back({size, size * 0.3 * uniform(random), size * 0.3 * uniform(random),
                           size * 0.03 * uniform(random)});
  }
  return input;
}

double bits_of(size_t format) {
  return mx::bits_per_value(mx::kOperandFormats[format]);
}

int64_t channels_of(const BudgetInput& input, size_t group, int64_t channel_group) {
  return std::min(channel_group, static_cast<int64_t>(input.order.size()) -
                                     static_cast<int64_t>(group) * channel_group);
}

// The same problem solved at a price of a bit: every group for itself, all formats tried.
struct Priced {
  double harm = 0;
  double bits = 0;  // average
};

Priced solve_at_price(const std::vector<BudgetInput>& inputs, int64_t channel_group, double price) {
  Priced result;
  double elements = 0;
  for (const BudgetInput& input : inputs) {
    for (size_t group = 0; group < input.harms.size(); ++group) {
      const double count =
          static_cast<double>(channels_of(input, group, channel_group) * input.rows);
      size_t best = 0;
      const auto cost = [&](size_t f) {
        return input.weight * input.harms[group][f] + price * count * bits_of(f);
      };
      for (size_t f = 1; f < mx::kOperandFormats.size(); ++f) {
        if (cost(f) < cost(best)) best = f;
      }
      result.harm += input.weight * input.harms[group][best];
      result.bits += count * bits_of(best);
      elements += count;
    }
  }
  result.bits /= elements;
  return result;
}

double average_bits(const std::vector<BudgetInput>& inputs, const BudgetResult& result) {
  double bits = 0, elements = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double count = static_cast<double>(result.plans[i].size() * inputs[i].rows);
    bits += count * result.plans[i].average_bits();
    elements += count;
  }
  return bits / elements;
}

TEST(Budget, EqualsTheLagrangianSolution) {
  std::mt19937 random(1);
  for (int64_t group : {32, 64, 128}) {
    std::vector<BudgetInput> inputs;
    for (int64_t channels : {416, 384, 1056}) {
      inputs.push_back(random_input(random, channels, group));
    }
    for (double price = 1e-6; price < 1e-1; price *= 1.7) {
      const Priced expected = solve_at_price(inputs, group, price);
      const BudgetResult result = allocate_budget(inputs, group, expected.bits + 1e-9);
      EXPECT_NEAR(result.average_bits, expected.bits, 1e-9);
      EXPECT_NEAR(result.predicted_kl, expected.harm, 1e-9 * inputs.size() * 1000);
      EXPECT_NEAR(average_bits(inputs, result), expected.bits, 1e-9);
    }
  }
}

TEST(Budget, IsNeverExceededAndSpent) {
  std::mt19937 random(2);
  const std::vector<BudgetInput> inputs = {random_input(random, 1024, 32),
                                           random_input(random, 384, 32)};
  double last = std::numeric_limits<double>::infinity();
  for (double bits = 4.25; bits < 8.25; bits += 0.05) {
    const BudgetResult result = allocate_budget(inputs, 32, bits);
    EXPECT_LE(average_bits(inputs, result), bits + 1e-12);
    EXPECT_NEAR(average_bits(inputs, result), result.average_bits, 1e-9);
    if (!result.exhausted) {
      EXPECT_GT(result.average_bits, bits - 0.05);
    }
    EXPECT_LE(result.predicted_kl, last);
    last = result.predicted_kl;
  }
}

TEST(Budget, StopsWhereNoGroupGains) {
  BudgetInput input;
  input.order.resize(64);
  std::iota(input.order.begin(), input.order.end(), 0);
  input.rows = 1;
  input.harms = {{1, 2, 3, 1}, {1, 0.5, 0.6, 0.5}};
  const BudgetResult result = allocate_budget({&input, 1}, 32, 8.0);
  EXPECT_TRUE(result.exhausted);
  EXPECT_EQ(result.average_bits, 5.25);  // E2M1 and E2M3
  EXPECT_EQ(result.predicted_kl, 1.5);
}

// Formats alternate over the groups: segments must collect them in format order, keep the channels'
// order within, and hold the short last group.
TEST(Budget, SegmentsKeepTheOrderWithin) {
  BudgetInput input;
  for (int32_t j = 0; j < 160; ++j) input.order.push_back(159 - j);
  input.rows = 1;
  input.harms = {{9, 9, 1, 9}, {0, 0, 0, 0}, {9, 1, 2, 1}};  // groups of 64, 64 and 32
  const BudgetResult result = allocate_budget({&input, 1}, 64, 8.25);
  const Plan& plan = result.plans[0];
  EXPECT_EQ(plan.channels, (std::array<int64_t, 4>{64, 32, 64, 0}));
  for (int32_t j = 0; j < 64; ++j) EXPECT_EQ(plan.permutation[j], 95 - j);
  for (int32_t j = 0; j < 32; ++j) EXPECT_EQ(plan.permutation[64 + j], 31 - j);
  for (int32_t j = 0; j < 64; ++j) EXPECT_EQ(plan.permutation[96 + j], 159 - j);
}

}  // namespace
}  // namespace micromix
