#include "micromix/quantize/allocation.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

namespace micromix {
namespace {

int64_t& channels_in(Plan& plan, mx::Format format) {
  return plan.channels[static_cast<size_t>(format)];
}

}  // namespace

std::vector<int32_t> ascending_order(const InputStatistics& input) {
  std::vector<int32_t> order(input.channels());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return input.mean_abs[a] < input.mean_abs[b]; });
  return order;
}

std::optional<AllocationOptions> parse_method(std::string_view text) {
  constexpr std::string_view kUniformPrefix = "uniform:";
  AllocationOptions options;
  if (text == "paper") return options;
  if (text.starts_with(kUniformPrefix)) {
    const auto format = mx::parse_format(text.substr(kUniformPrefix.size()), mx::kOperandFormats);
    if (!format) return std::nullopt;
    options.method = AllocationMethod::kUniform;
    options.uniform = *format;
    return options;
  }
  if (text == "released") {
    options.method = AllocationMethod::kReleased;
  } else if (text == "budget") {
    options.method = AllocationMethod::kBudget;
  } else {
    return std::nullopt;
  }
  return options;
}

mx::ScaleRule default_scale_rule(AllocationMethod method) {
  return method == AllocationMethod::kBudget ? mx::ScaleRule::kEven : mx::ScaleRule::kRceil;
}

Plan uniform_plan(int64_t channels, mx::Format format) {
  Plan plan;
  channels_in(plan, format) = channels;
  return plan;
}

Plan allocate(const InputStatistics& input, const AllocationOptions& options) {
  const int64_t total = input.channels();
  assert(total % mx::kBlockSize == 0 && options.method != AllocationMethod::kBudget);
  if (options.method == AllocationMethod::kUniform) return uniform_plan(total, options.uniform);

  const bool paper = options.method == AllocationMethod::kPaper;
  const Threshold four = paper ? Threshold::kPaperE2M1 : Threshold::kReleased4;
  const Threshold paper_six =
      options.fp6 == mx::Format::kE2M3 ? Threshold::kPaperE2M3 : Threshold::kPaperE3M2;
  const Threshold six = paper ? paper_six : Threshold::kReleased6;
  const auto whole_groups = [&](double fraction) {
    const double groups =
        fraction * static_cast<double>(total) / static_cast<double>(options.channel_group);
    // A mean of fractions that is a whole number of groups may come out above it by its rounding.
    return static_cast<int64_t>(std::ceil(groups - 1e-9)) * options.channel_group;
  };
  const int64_t fp8 = std::min(total, whole_groups(1.0 - input.below(six)));
  const int64_t fp6 = std::min(total - fp8, whole_groups(input.below(six) - input.below(four)));
  Plan plan;
  plan.permutation = ascending_order(input);
  channels_in(plan, mx::Format::kE4M3) = fp8;
  channels_in(plan, options.fp6) = fp6;
  channels_in(plan, mx::Format::kE2M1) = total - fp6 - fp8;
  return plan;
}

}  // namespace micromix
