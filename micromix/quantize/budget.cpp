#include "micromix/quantize/budget.h"

#include <algorithm>
#include <cassert>

namespace micromix {
namespace {

// Indices into mx::kOperandFormats.
constexpr size_t kE2M1 = 0, kE2M3 = 1, kE3M2 = 2, kE4M3 = 3;

constexpr double bits_of(size_t format) {
  return mx::bits_per_value(mx::kOperandFormats[format]);
}

// One group of one input moves from a format to a wider one.
struct Step {
  size_t input;
  size_t group;
  size_t format;
  double bits;  // what it costs, in bits of the whole model
  double gain;  // what it saves, in weighted harm
};

int64_t group_channels(const BudgetInput& input, size_t group, int64_t channel_group) {
  const int64_t begin = static_cast<int64_t>(group) * channel_group;
  return std::min(channel_group, static_cast<int64_t>(input.order.size()) - begin);
}

// The steps of one group along the lower convex hull of (bits, harm), from FP4 up: each takes the
// wider format that saves most a bit, so their gain a bit falls.
std::vector<Step> hull_steps(const BudgetInput& input, size_t input_index, size_t group,
                             int64_t channel_group) {
  const FormatHarms& harms = input.harms[group];
  const double elements = static_cast<double>(group_channels(input, group, channel_group)) *
                          static_cast<double>(input.rows);
  // E2M3 where the blocks have no outlier, E3M2 where they have: the bits are the same.
  const size_t six = harms[kE2M3] <= harms[kE3M2] ? kE2M3 : kE3M2;
  std::vector<Step> steps;
  size_t current = kE2M1;
  while (true) {
    Step best{};
    for (size_t wider : {six, kE4M3}) {
      const double bits = elements * (bits_of(wider) - bits_of(current));
      const double gain = input.weight * (harms[current] - harms[wider]);
      if (bits > 0 && gain > 0 && gain * best.bits >= best.gain * bits) {
        best = {input_index, group, wider, bits, gain};
      }
    }
    if (best.bits == 0) return steps;
    steps.push_back(best);
    current = best.format;
  }
}

Plan make_plan(const BudgetInput& input, std::span<const uint8_t> formats, int64_t channel_group) {
  Plan plan;
  for (size_t f = 0; f < mx::kOperandFormats.size(); ++f) {
    for (size_t group = 0; group < formats.size(); ++group) {
      if (formats[group] != f) continue;
      const int64_t channels = group_channels(input, group, channel_group);
      const auto begin = input.order.begin() + static_cast<int64_t>(group) * channel_group;
      plan.permutation.insert(plan.permutation.end(), begin, begin + channels);
      plan.channels[f] += channels;
    }
  }
  return plan;
}

}  // namespace

BudgetResult allocate_budget(std::span<const BudgetInput> inputs, int64_t channel_group,
                             double bits) {
  BudgetResult result;
  std::vector<Step> steps;
  std::vector<std::vector<uint8_t>> formats;
  double elements = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    formats.emplace_back(inputs[i].harms.size(), uint8_t{0});
    elements += static_cast<double>(inputs[i].order.size()) * static_cast<double>(inputs[i].rows);
    for (size_t group = 0; group < inputs[i].harms.size(); ++group) {
      result.predicted_kl += inputs[i].weight * inputs[i].harms[group][kE2M1];
      const std::vector<Step> of_group = hull_steps(inputs[i], i, group, channel_group);
      steps.insert(steps.end(), of_group.begin(), of_group.end());
    }
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return a.gain * b.bits > b.gain * a.bits; });

  assert(bits >= bits_of(kE2M1));
  double left = (bits - bits_of(kE2M1)) * elements;
  // A group whose step did not fit takes no later one: its hull would be climbed out of order.
  std::vector<std::vector<bool>> stopped;
  for (const auto& groups : formats) stopped.emplace_back(groups.size(), false);
  result.exhausted = true;
  for (const Step& step : steps) {
    if (stopped[step.input][step.group]) continue;
    if (step.bits > left) {
      stopped[step.input][step.group] = true;
      result.exhausted = false;
      continue;
    }
    left -= step.bits;
    result.predicted_kl -= step.gain;
    formats[step.input][step.group] = static_cast<uint8_t>(step.format);
  }
  result.average_bits = bits - left / elements;
  for (size_t i = 0; i < inputs.size(); ++i) {
    result.plans.push_back(make_plan(inputs[i], formats[i], channel_group));
  }
  return result;
}

}  // namespace micromix
