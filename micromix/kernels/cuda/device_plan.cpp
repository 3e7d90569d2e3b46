#include "micromix/kernels/cuda/device_plan.h"

#include <cassert>

#include "micromix/base/error.h"

namespace micromix::kernels::cuda {

DevicePlan::DevicePlan(const InputPlan& plan) {
  if (plan.segments.size() > kMostSegments) {
    throw Error(fmt::format("CUDA: a plan of {} segments, but kernels take at most {}",
                            plan.segments.size(), kMostSegments));
  }
  if (plan.k > kMostChannels) {
    throw Error(fmt::format("CUDA: rows of {} channels, but kernels take at most {}", plan.k,
                            kMostChannels));
  }
  view_.k = static_cast<int32_t>(plan.k);
  view_.rule = plan.scale_rule;
  for (const InputPlan::Segment& segment : plan.segments) {
    assert(segment.channels % mx::kBlockSize == 0);
    const int32_t first = view_.segment_count == 0
                              ? 0
                              : view_.segments[view_.segment_count - 1].first +
                                    view_.segments[view_.segment_count - 1].channels;
    view_.segments[view_.segment_count++] = {segment.format.value_or(segment.weight),
                                             !segment.format, first,
                                             static_cast<int32_t>(segment.channels), view_.blocks};
    view_.blocks +=
        static_cast<int32_t>((segment.channels + kChunk - 1) / kChunk) * kBlocksPerChunk;
  }
  if (!plan.permutation.empty()) {
    assert(static_cast<int64_t>(plan.permutation.size()) == plan.k);
    permutation_.assign(plan.permutation);
    view_.permutation = permutation_.data();
  }
}

}  // namespace micromix::kernels::cuda
