// The block-scaled product against the FP64 oracle, over rows made on the host: the derived bound,
// and equality where arithmetic is exact. Its instructions are emulated where the GPU has none.
#include <cmath>
#include <limits>

#include "micromix/kernels/cuda/block_scaled/product.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
#include "tests/cuda/code_rows.h"
#include "tests/cuda/outputs.h"

namespace micromix::kernels::cuda::block_scaled {
namespace {

using testing::expect_outputs_within_bound;
using testing::HostCodeRows;
using testing::Random;
using testing::random_plan;
using testing::random_rows;
using testing::random_weight;
using testing::SegmentShape;

std::vector<Instructions> instructions_here() {
  if (native_instructions_work()) return {Instructions::kEmulated, Instructions::kNative};
  return {Instructions::kEmulated};
}

std::vector<float> product(const Weight& weight, const CodeRows& x, Instructions instructions) {
  return testing::outputs_of(
      x.m, weight.n(), [&](__nv_bfloat16* y) { multiply(weight, x, y, nullptr, instructions); });
}

void expect_within_bound(Random& random, const MixedWeight& weight, const InputPlan& plan,
                         int64_t m, float size = 1) {
  std::vector<float> x = random_rows(random, m * plan.k);
  for (float& value : x) value *= size;
  const QuantizedRows rows = quantize_rows(plan, m, x.data());
  const HostCodeRows device_rows(rows);
  const Weight packed(weight, nullptr);
  for (Instructions instructions : instructions_here()) {
    const std::vector<float> y = product(packed, device_rows.view(), instructions);
    expect_outputs_within_bound(random, weight, rows, product_additions(weight.k), y);
    EXPECT_EQ(product(packed, device_rows.view(), instructions), y) << "run to run";
  }
}

TEST(BlockScaledProduct, EveryOperandPairIsWithinTheBound) {
  Random random(1);
  for (mx::Format weight_format : mx::kOperandFormats) {
    for (mx::Format x_format : mx::kOperandFormats) {
      const std::vector<SegmentShape> shapes = {{weight_format, x_format, 672}};
      for (int64_t m : {1, 7, 16, 20, 70}) {
        SCOPED_TRACE(fmt::format("{} times {}", mx::name(weight_format), mx::name(x_format)));
        const auto weight = random_weight(random, 19, shapes, 110, 140, true);
        const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
        expect_within_bound(random, weight.weight, plan, m);
      }
    }
  }
}

TEST(BlockScaledProduct, MixedSegmentsAndAwkwardShapesAreWithinTheBound) {
  Random random(2);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 608},
                                            {mx::Format::kE2M3, mx::Format::kE4M3, 32},
                                            {mx::Format::kE3M2, mx::Format::kE3M2, 64},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 320}};
  for (const auto& [m, n] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1},    {1, 65},    {2, 40},    {3, 33},     {4, 31},     {5, 64},
           {8, 260},  {9, 100},   {13, 70},   {16, 16},    {17, 65},    {31, 129},
           {33, 40},  {64, 128},  {65, 136},  {127, 130},  {129, 1},    {300, 250},
           {1, 9000}, {12, 9000}, {40, 5000}, {100, 1500}, {1100, 2130}}) {
    const auto weight = random_weight(random, n, shapes, 120, 134, n % 2 == 0);
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kEven);
    expect_within_bound(random, weight.weight, plan, m);
  }
}

// Segments of one block each, and of tiles more than fit the GPU at once, whose copies run ahead.
TEST(BlockScaledProduct, SegmentsOfOneBlockAreWithinTheBound) {
  Random random(3);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE4M3, 32},
                                            {mx::Format::kE2M3, mx::Format::kE2M1, 32},
                                            {mx::Format::kE3M2, mx::Format::kE2M3, 32},
                                            {mx::Format::kE4M3, mx::Format::kE3M2, 32}};
  for (const auto& [m, n] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 40}, {16, 70}, {50, 16000}, {300, 9000}}) {
    const auto weight = random_weight(random, n, shapes, 120, 134, true);
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kFloor);
    expect_within_bound(random, weight.weight, plan, m);
  }
}

// Small scales times large ones, whose products are ordinary.
TEST(BlockScaledProduct, OppositeScalesAreWithinTheBound) {
  Random random(4);
  for (mx::Format format : mx::kOperandFormats) {
    const std::vector<SegmentShape> shapes = {{format, mx::Format::kE4M3, 96}};
    for (const auto& [low, high, size] : std::vector<std::tuple<int, int, float>>{
             {0, 4, 1e30f}, {25, 29, 1e29f}, {225, 229, 1e-29f}, {250, 254, 1e-33f}}) {
      const auto weight = random_weight(random, 40, shapes, low, high, false);
      const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
      for (int64_t m : {3, 40}) expect_within_bound(random, weight.weight, plan, m, size);
    }
  }
}

// One-hot activations return the dequantized weight bit for bit, by every kernel and with every
// scale byte that is special.
TEST(BlockScaledProduct, OneHotActivationsReturnTheWeight) {
  constexpr int64_t kK = 160, kN = 150;
  Random random(5);
  for (mx::Format format : mx::kOperandFormats) {
    for (mx::Format x_format : mx::kOperandFormats) {
      for (int scale_byte : {0, 1, 27, 127, 227, 254}) {
        const int power = scale_byte == 127 ? 20 : 0;
        const std::vector<SegmentShape> shapes = {{format, x_format, kK}};
        const auto weight = random_weight(random, kN, shapes, scale_byte, scale_byte, false);
        const auto plan = random_plan(random, shapes, mx::ScaleRule::kFloor);
        std::vector<float> x(kK * kK);
        for (int64_t j = 0; j < kK; ++j) x[j * kK + plan.permutation[j]] = std::ldexp(1.0f, power);
        std::vector<uint8_t> codes(kN * kK);
        mx::unpack(format, weight.codes[0], codes);
        const Weight packed(weight.weight, nullptr);
        for (int64_t m : {int64_t{8}, int64_t{16}, kK}) {
          for (int64_t first = 0; first < kK; first += m) {
            const int64_t count = std::min(m, kK - first);
            const HostCodeRows rows(quantize_rows(plan, count, x.data() + first * kK));
            for (Instructions instructions : instructions_here()) {
              const auto y = product(packed, rows.view(), instructions);
              for (int64_t i = 0; i < count * kN; ++i) {
                const int64_t channel = first + i / kN;
                const double element = mx::decode(format, codes[i % kN * kK + channel]);
                const double exact = std::ldexp(element, scale_byte - 127 + power);
                ASSERT_EQ(mx::to_float(mx::to_bfloat16(static_cast<float>(exact))), y[i])
                    << mx::name(format) << " times " << mx::name(x_format) << " scale "
                    << scale_byte << " rows " << m << " channel " << channel;
              }
            }
          }
        }
      }
    }
  }
}

// Sums of small integers have no rounding but the last.
TEST(BlockScaledProduct, SmallIntegersAreExact) {
  constexpr int64_t kN = 150;
  Random random(6);
  for (mx::Format format : mx::kOperandFormats) {
    for (mx::Format x_format : mx::kOperandFormats) {
      const std::vector<SegmentShape> shapes = {{format, x_format, 352}};
      auto weight = random_weight(random, kN, shapes, 127, 127, false);
      std::vector<uint8_t> codes(kN * 352);
      for (uint8_t& code : codes) {
        code = mx::encode(format, static_cast<float>(static_cast<int>(random() % 9) - 4));
      }
      mx::pack(format, codes, weight.codes[0]);
      const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
      for (int64_t m : {5, 12, 60, 140}) {
        std::vector<float> x(m * 352);
        for (float& value : x) value = static_cast<float>(static_cast<int>(random() % 7)) - 3;
        const QuantizedRows rows = quantize_rows(plan, m, x.data());
        const HostCodeRows device_rows(rows);
        for (Instructions instructions : instructions_here()) {
          const auto y = product(Weight(weight.weight, nullptr), device_rows.view(), instructions);
          for (int64_t i = 0; i < m * kN; ++i) {
            const OracleValue exact = oracle_output(weight.weight, rows, i / kN, i % kN);
            ASSERT_EQ(y[i], mx::to_float(mx::to_bfloat16(static_cast<float>(exact.value))))
                << mx::name(format) << " times " << mx::name(x_format) << " m " << m;
          }
        }
      }
    }
  }
}

TEST(BlockScaledProduct, NanMakesItsOutputsNan) {
  Random random(7);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 64},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 64}};
  auto weight = random_weight(random, 4, shapes, 127, 127, false);
  std::fill(weight.codes[0].begin(), weight.codes[0].end(), 0);  // also against all-zero blocks
  weight.scales[0][2 * 1 + 1] = mx::kScaleNan;                   // row 1, second block
  weight.codes[1][2 * 64 + 7] = 0x7F;                            // row 2
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  for (int64_t m : {2, 10, 30, 150}) {
    std::vector<float> x(m * 128, 1.0f);
    x[128 + 5] = std::numeric_limits<float>::infinity();
    const HostCodeRows rows(quantize_rows(plan, m, x.data()));
    for (Instructions instructions : instructions_here()) {
      const auto y = product(Weight(weight.weight, nullptr), rows.view(), instructions);
      for (int64_t i = 0; i < m * 4; ++i) {
        EXPECT_EQ(std::isnan(y[i]), i / 4 == 1 || i % 4 == 1 || i % 4 == 2) << m << " " << i;
      }
    }
  }
}

TEST(BlockScaledProduct, WeightsTakeAsMuchMemoryAsPacked) {
  Random random(8);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 512},
                                            {mx::Format::kE3M2, mx::Format::kE3M2, 128},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 384}};
  const auto weight = random_weight(random, 1024, shapes, 120, 134, true);
  int64_t stored = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    stored += static_cast<int64_t>(weight.codes[i].size() + weight.scales[i].size());
  }
  EXPECT_LE(static_cast<double>(Weight(weight.weight, nullptr).bytes()),
            1.05 * static_cast<double>(stored));
}

}  // namespace
}  // namespace micromix::kernels::cuda::block_scaled
