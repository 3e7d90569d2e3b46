#include "micromix/quantize/harm.h"

#include <cmath>

#include "micromix/mx/block.h"
#include "micromix/quantize/quantize_linear.h"
#include "micromix/quantize/sensitivity.h"
#include "tests/quantize/demo.h"

namespace micromix {
namespace {

std::vector<float> quantized(mx::Format format, mx::ScaleRule rule,
                             const std::vector<float>& values) {
  std::vector<uint8_t> codes(values.size());
  const uint8_t scale = mx::quantize_block(format, rule, values, codes);
  std::vector<float> out;
  for (uint8_t code : codes) out.push_back(mx::dequantize(format, code, scale));
  return out;
}

// ||X W^T - Q(X) Q(W)^T||^2 of one block of channels, as it reads.
double block_harm(const InputStatistics& input, const LinearWeights& linear,
                  std::span<const int32_t> channels, mx::Format format, mx::ScaleRule rule) {
  std::vector<std::vector<float>> x, xq;
  for (int64_t row = 0; row < input.row_count; ++row) {
    std::vector<float>& line = x.emplace_back();
    for (int32_t c : channels) line.push_back(mx::to_float(input.rows[row * linear.k + c]));
    xq.push_back(quantized(format, rule, line));
  }
  double harm = 0;
  for (int64_t n = 0; n < linear.n; ++n) {
    const std::vector<float> source = weight_row(linear, n);
    std::vector<float> w;
    for (int32_t c : channels) w.push_back(source[c]);
    const std::vector<float> wq = quantized(format, rule, w);
    for (size_t row = 0; row < x.size(); ++row) {
      double error = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        error += static_cast<double>(x[row][i]) * w[i] - static_cast<double>(xq[row][i]) * wq[i];
      }
      harm += error * error;
    }
  }
  return harm;
}

TEST(Harm, IsTheOutputErrorOfTheGroup) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = testing::statistics_of(weights);
  const InputStatistics& input = statistics.at(1, InputRole::kAttention);
  const LayerWeights& layer = weights.layers[1];
  const std::array readers = {&layer[LinearRole::kK], &layer[LinearRole::kV]};
  QuantizeOptions options = testing::options_for(AllocationMethod::kBudget);
  options.scale_rule = mx::ScaleRule::kEven;
  options.allocation.channel_group = 64;
  const std::vector<int32_t> order = ascending_order(input);
  const auto harms = group_harms(input, readers, order, options);
  ASSERT_EQ(harms.size(), 6u);
  for (size_t group : {0, 5}) {
    for (size_t f = 0; f < 4; ++f) {
      double expected = 0;
      for (const LinearWeights* reader : readers) {
        for (size_t block = 0; block < 2; ++block) {
          expected +=
              block_harm(input, *reader, std::span(order).subspan(group * 64 + block * 32, 32),
                         mx::kOperandFormats[f], options.scale_rule);
        }
      }
      // FP32 moments over 128 rows, and sums of 32 x 32 of them: 2^-24 * (128 + 2 * 32) at most of
      // sums that cancel little.
      EXPECT_NEAR(harms[group][f] / expected, 1.0, 1e-3) << group << " " << f;
    }
  }
}

TEST(Sensitivity, IsTheKlOfThatInputAlone) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  Statistics statistics = testing::statistics_of(weights);
  EXPECT_FALSE(has_sensitivities(statistics));
  measure_sensitivities(weights, statistics, nullptr);
  ASSERT_TRUE(has_sensitivities(statistics));
  QuantizeOptions options = testing::options_for(AllocationMethod::kUniform);
  options.scale_rule = mx::ScaleRule::kEven;
  for (InputRole input : {InputRole::kAttention, InputRole::kDown}) {
    ModelPlan plan;
    plan.layers.resize(weights.layers.size());
    plan.layers[2].plans[static_cast<size_t>(input)] =
        uniform_plan(statistics.at(2, input).channels(), mx::Format::kE2M1);
    plan.layers[2].plans[static_cast<size_t>(input)].permutation =
        ascending_order(statistics.at(2, input));
    for (LinearRole role : kLinearRoles) {
      plan.layers[2].quantized[static_cast<size_t>(role)] = input_of(role) == input;
    }
    const double kl = measure_plan_kl(weights, statistics, plan, options, nullptr);
    EXPECT_GT(kl, 0);
    EXPECT_DOUBLE_EQ(kl, *statistics.at(2, input).fp4_kl);
  }
}

}  // namespace
}  // namespace micromix
