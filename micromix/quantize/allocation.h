// Allocation: from the statistics of an input to its plan.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "micromix/checkpoint/plan.h"
#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

enum class AllocationMethod : uint8_t {
  kPaper,     // the thresholds of arXiv 2508.02343
  kReleased,  // those of its authors' released code
  kUniform,   // one format, original order: the MXFP4, MXFP6 and MXFP8 baselines
  kBudget,    // ours: least harm at a target of average bits over the whole model (budget.h)
};

struct AllocationOptions {
  AllocationMethod method = AllocationMethod::kPaper;
  mx::Format uniform = mx::Format::kE2M1;  // kUniform's format
  mx::Format fp6 = mx::Format::kE3M2;      // the 6-bit format of kPaper and kReleased: E3M2 or E2M3
  int64_t channel_group = 32;              // 32, 64 or 128
  // kBudget's target: average bits, or, where max_kl is set, KL(BF16 || quantized) on the
  // calibration text.
  double bits = 0;
  std::optional<double> max_kl;
};

// The plan of one input by kPaper, kReleased or kUniform: channels in ascending order of mean |x|,
// so that outliers share blocks with outliers; the shares of elements above the thresholds, rounded
// up to whole groups, become FP8 and FP6 channels and the rest FP4. The number of channels must be
// a multiple of 32; where it is not one of the group, the FP4 part takes the shorter group.
Plan allocate(const InputStatistics& input, const AllocationOptions& options);

// "paper", "released", "budget" and "uniform:FORMAT", as the method of otherwise default options;
// none where TEXT is something else.
std::optional<AllocationOptions> parse_method(std::string_view text);

// The method's usual rule: `even` for kBudget, else `rceil`.
mx::ScaleRule default_scale_rule(AllocationMethod method);

// Channels of an input in ascending order of mean |x|.
std::vector<int32_t> ascending_order(const InputStatistics& input);

// Every channel in one format, in the original order.
Plan uniform_plan(int64_t channels, mx::Format format);

}  // namespace micromix
