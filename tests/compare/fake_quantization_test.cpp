// The baselines' formats, on values worked out by hand.
#include "micromix/compare/fake_quantization.h"

#include <cmath>
#include <vector>

#include "tests/testing.h"

namespace micromix {
namespace {

std::vector<float> quantized(Baseline baseline, int64_t m, std::vector<float> x) {
  fake_quantize(baseline, m, static_cast<int64_t>(x.size()) / m, x.data());
  return x;
}

TEST(FakeQuantization, Nvfp4HasAScalePerSixteenUnderOnePerTensor) {
  std::vector<float> x(32, 0.0f);
  x[0] = 2688;  // 6 * 448: the tensor's scale is 1, this block's 448
  x[1] = 448;
  x[2] = 150;  // 150 / 448 = 0.335, nearest to 0.5
  x[16] = 6;   // block scale 1
  x[17] = 2.4f;
  x[18] = -5.1f;
  const std::vector<float> q = quantized(Baseline::kNvfp4, 1, x);
  EXPECT_EQ(q[0], 2688);
  EXPECT_EQ(q[1], 448);
  EXPECT_EQ(q[2], 224);
  EXPECT_EQ(q[16], 6);
  EXPECT_EQ(q[17], 2);
  EXPECT_EQ(q[18], -6);
  EXPECT_EQ(q[31], 0);
}

TEST(FakeQuantization, Int4IsSymmetricPer128WithBf16Scales) {
  std::vector<float> x(256 + 8, 0.0f);
  x[0] = 7;  // scale 1
  x[1] = 2.5f;
  x[2] = -7;
  x[3] = 3.4f;
  x[128] = 0.7f;  // another scale: 0.1 in BF16
  x[129] = 0.26f;
  x[256] = 14;  // the short last block
  x[257] = 3;
  const std::vector<float> q = quantized(Baseline::kInt4, 1, x);
  EXPECT_EQ(q[0], 7);
  EXPECT_EQ(q[1], 2);  // ties to even
  EXPECT_EQ(q[2], -7);
  EXPECT_EQ(q[3], 3);
  const float scale = 0x1.9Ap-4f;  // 0.1 rounded to BF16
  EXPECT_EQ(q[128], 7 * scale);
  EXPECT_EQ(q[129], 3 * scale);
  EXPECT_EQ(q[256], 14);
  EXPECT_EQ(q[257], 4);  // 1.5 scales
}

TEST(FakeQuantization, Int8HasAScalePerRow) {
  const std::vector<float> q =
      quantized(Baseline::kInt8, 2, {127, 1.4f, -126.6f, 0, 254, 1.4f, -2.9f, 3.1f});
  EXPECT_EQ(q, (std::vector<float>{127, 1, -127, 0, 254, 2, -2, 4}));
}

TEST(FakeQuantization, ZerosStayZeros) {
  for (Baseline baseline : {Baseline::kNvfp4, Baseline::kInt4, Baseline::kInt8}) {
    EXPECT_EQ(quantized(baseline, 2, std::vector<float>(64)), std::vector<float>(64));
    EXPECT_EQ(parse_baseline(name(baseline)), baseline);
  }
  EXPECT_EQ(bits_per_value(Baseline::kNvfp4), 4.5);
  EXPECT_EQ(bits_per_value(Baseline::kInt4), 4.125);
  EXPECT_EQ(bits_per_value(Baseline::kInt8), 8);
}

// Products of integers that INT8 holds as they are, through the backend.
TEST(FakeQuantization, BackendMultipliesTheRoundedOperands) {
  const auto backend = fake_quantization_backend(Baseline::kInt8, kernels::reference_backend());
  const std::vector<float> w = {127, 3, -5, 0, 0, 127, 1, 2};  // [2, 4]
  const auto linear = backend->prepare(
      kernels::DenseWeight{2, 4, kernels::DenseType::kF32, std::as_bytes(std::span(w)), {1, 0}});
  const std::vector<float> x = {127, 1, 2.4f, 0};
  const kernels::InputPlan plan{4, {}, {}, mx::ScaleRule::kRceil};
  const auto input = backend->input(plan, 1, x.data());
  std::vector<float> y(2);
  backend->multiply(*linear, *input, y.data());
  // 127 * 127 + 3 - 5 * 2 + 1 = 16123 and 127 + 2 = 129, rounded to BF16's eight bits.
  EXPECT_EQ(y, (std::vector<float>{16128, 129}));
}

}  // namespace
}  // namespace micromix
