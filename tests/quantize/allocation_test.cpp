#include "micromix/quantize/allocation.h"

#include <algorithm>
#include <cmath>

#include "tests/testing.h"

namespace micromix {
namespace {

// An input of CHANNELS channels whose mean |x| falls with the channel, with these shares below.
InputStatistics input_with(int64_t channels, double below_four, double below_six) {
  InputStatistics input;
  for (int64_t j = 0; j < channels; ++j) input.mean_abs.push_back(static_cast<float>(channels - j));
  input.fraction_below = {below_four, 0.9, below_six, 0.97, 0.99};
  return input;
}

int64_t channels(const Plan& plan, mx::Format format) {
  return plan.channels[static_cast<size_t>(format)];
}

TEST(Thresholds, ArePublished) {
  EXPECT_NEAR(paper_threshold(mx::Format::kE2M1), 0.0105, 5e-5);
  EXPECT_NEAR(paper_threshold(mx::Format::kE3M2), 0.0360, 5e-5);
  EXPECT_NEAR(paper_threshold(mx::Format::kE2M3), 0.0336, 5e-5);
}

TEST(Allocation, SharesBecomeWholeGroupsAndFp4TakesTheRest) {
  // Of 1024 channels: 10 % FP8 (102.4 -> 128), 20 % FP6 (204.8 -> 224).
  const Plan plan = allocate(input_with(1024, 0.7, 0.9), {});
  EXPECT_EQ(channels(plan, mx::Format::kE4M3), 128);
  EXPECT_EQ(channels(plan, mx::Format::kE3M2), 224);
  EXPECT_EQ(channels(plan, mx::Format::kE2M1), 1024 - 128 - 224);
  EXPECT_EQ(channels(plan, mx::Format::kE2M3), 0);
}

TEST(Allocation, ChannelsAscendByMeanMagnitude) {
  const Plan plan = allocate(input_with(64, 0.5, 0.9), {});
  ASSERT_EQ(plan.permutation.size(), 64u);
  for (int32_t j = 0; j < 64; ++j) EXPECT_EQ(plan.permutation[j], 63 - j);
}

TEST(Allocation, LargerGroupsAndShortLastGroup) {
  AllocationOptions options;
  options.channel_group = 128;
  // 416 = 3 * 128 + 32: the FP4 part takes the short group.
  const Plan plan = allocate(input_with(416, 0.6, 0.9), options);
  EXPECT_EQ(channels(plan, mx::Format::kE4M3), 128);
  EXPECT_EQ(channels(plan, mx::Format::kE3M2), 128);
  EXPECT_EQ(channels(plan, mx::Format::kE2M1), 160);
}

TEST(Allocation, RoundingUpNeverExceedsTheInput) {
  AllocationOptions options;
  options.channel_group = 128;
  const Plan plan = allocate(input_with(160, 0.0, 0.1), options);
  EXPECT_EQ(plan.size(), 160);
  EXPECT_EQ(channels(plan, mx::Format::kE4M3), 160);
  EXPECT_EQ(channels(plan, mx::Format::kE2M1), 0);
}

TEST(Allocation, MethodsUseTheirThresholds) {
  AllocationOptions options;
  options.method = AllocationMethod::kReleased;  // 1 % above 0.25, 2 % between
  const Plan released = allocate(input_with(3200, 0.7, 0.9), options);
  EXPECT_EQ(channels(released, mx::Format::kE4M3), 32);
  EXPECT_EQ(channels(released, mx::Format::kE3M2), 64);

  options.method = AllocationMethod::kPaper;
  options.fp6 = mx::Format::kE2M3;
  const Plan e2m3 = allocate(input_with(3200, 0.7, 0.95), options);
  EXPECT_EQ(channels(e2m3, mx::Format::kE2M3), 640);  // 0.9 - 0.7
  EXPECT_EQ(channels(e2m3, mx::Format::kE3M2), 0);

  options.method = AllocationMethod::kUniform;
  options.uniform = mx::Format::kE4M3;
  const Plan uniform = allocate(input_with(96, 0, 0), options);
  EXPECT_TRUE(uniform.permutation.empty());
  EXPECT_EQ(channels(uniform, mx::Format::kE4M3), 96);
  EXPECT_EQ(uniform.average_bits(), 8.25);
}

}  // namespace
}  // namespace micromix
