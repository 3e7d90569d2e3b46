// The exact product against the FP64 oracle, over exact rows made on the host: the derived bound,
// and equality where arithmetic is exact.
#include "micromix/kernels/cuda/product.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "micromix/kernels/cuda/device_plan.h"
#include "micromix/kernels/cuda/quantize.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
#include "tests/cuda/exact_rows.h"
#include "tests/cuda/outputs.h"
#include "tests/kernels/random_linear.h"
#include "tests/kernels/repeated_bytes.h"
#include "tests/testing.h"

namespace micromix::kernels::cuda {
namespace {

using testing::activation_formats;
using testing::expect_outputs_within_bound;
using testing::HostExactRows;
using testing::Random;
using testing::random_plan;
using testing::random_rows;
using testing::random_weight;
using testing::SegmentShape;

// By this GPU's kernels and by those of every GPU, which are the same but on Hopper.
class CudaProduct : public ::testing::TestWithParam<CudaProducts> {
 protected:
  std::vector<float> product(const PackedWeight& weight, const ExactRows& x, Workspace& workspace) {
    return testing::outputs_of(x.m, weight.n(), [&](__nv_bfloat16* y) {
      multiply(weight, x, y, workspace, nullptr, false, GetParam());
    });
  }

  void expect_within_bound(Random& random, const MixedWeight& weight, const InputPlan& plan,
                           int64_t m) {
    const std::vector<float> x = random_rows(random, m * plan.k);
    const QuantizedRows rows = quantize_rows(plan, m, x.data());
    const HostExactRows exact_rows(rows);
    const PackedWeight packed(weight, nullptr);
    Workspace workspace;
    const std::vector<float> y = product(packed, exact_rows.view(), workspace);
    expect_outputs_within_bound(random, weight, rows, product_additions(weight.k), y);
    EXPECT_EQ(product(packed, exact_rows.view(), workspace), y) << "run to run";
  }

  // Weights of each of so many rows N, with a bias, times M rows, by one plan.
  void expect_sizes_within_bound(Random& random, const std::vector<SegmentShape>& shapes,
                                 const std::vector<std::pair<int64_t, int64_t>>& sizes) {
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
    for (const auto& [m, n] : sizes) {
      const auto weight = random_weight(random, n, shapes, 120, 134, true);
      expect_within_bound(random, weight.weight, plan, m);
    }
  }

  // Within the bound for so many channels, or infinite where the exact result is.
  static bool is_right(const OracleValue& exact, int64_t k, float found) {
    if (std::fabs(exact.value) >= 0x1.FFp127) return std::isinf(found);
    return std::fabs(found - exact.value) <= error_bound(exact, product_additions(k));
  }

  // X times a weight of scale bytes LOW to HIGH, by the bound.
  void expect_extreme_outputs(Random& random, int64_t n, int64_t k, int low, int high, int64_t m,
                              float size) {
    const std::vector<SegmentShape> shapes = {{mx::Format::kE4M3, mx::Format::kE4M3, k}};
    const auto weight = random_weight(random, n, shapes, low, high, true);
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
    std::vector<float> x = random_rows(random, m * k);
    for (float& value : x) value = std::clamp(value * size, -3e38f, 3e38f);
    const QuantizedRows rows = quantize_rows(plan, m, x.data());
    Workspace workspace;
    const auto y =
        product(PackedWeight(weight.weight, nullptr), HostExactRows(rows).view(), workspace);
    for (int64_t i = 0; i < m * n; ++i) {
      const OracleValue exact = oracle_output(weight.weight, rows, i / n, i % n);
      ASSERT_TRUE(is_right(exact, k, y[i]))
          << low << ".." << high << " m " << m << " n " << n << " size " << size << " exactly "
          << exact.value << " found " << y[i];
    }
  }
};
class SlowCudaProduct : public CudaProduct {};

std::string kernels_name(const ::testing::TestParamInfo<CudaProducts>& info) {
  return info.param == CudaProducts::kExact ? "Fastest" : "MmaSync";
}
INSTANTIATE_TEST_SUITE_P(Kernels, CudaProduct,
                         ::testing::Values(CudaProducts::kExact, CudaProducts::kExactMmaSync),
                         kernels_name);
INSTANTIATE_TEST_SUITE_P(Kernels, SlowCudaProduct,
                         ::testing::Values(CudaProducts::kExact, CudaProducts::kExactMmaSync),
                         kernels_name);

TEST_P(CudaProduct, EveryOperandPairIsWithinTheBound) {
  Random random(1);
  for (mx::Format weight_format : mx::kOperandFormats) {
    for (const auto& activation : activation_formats()) {
      const std::vector<SegmentShape> shapes = {{weight_format, activation, 96}};
      for (int64_t m : {1, 7, 16, 20, 40, 70, 150}) {
        SCOPED_TRACE(fmt::format("{} times {}", mx::name(weight_format),
                                 activation ? mx::name(*activation) : "bf16"));
        const auto weight = random_weight(random, 19, shapes, 110, 140, true);
        const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
        expect_within_bound(random, weight.weight, plan, m);
      }
    }
  }
}

TEST_P(CudaProduct, MixedSegmentsAndAwkwardShapesAreWithinTheBound) {
  Random random(2);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 608},
                                            {mx::Format::kE2M3, mx::Format::kE4M3, 32},
                                            {mx::Format::kE3M2, std::nullopt, 64},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 320}};
  for (const auto& [m, n] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1},     {1, 65},   {2, 40},    {3, 33},     {4, 31},     {5, 64},
           {8, 260},   {9, 100},  {13, 70},   {16, 16},    {17, 65},    {31, 129},
           {33, 40},   {64, 128}, {65, 136},  {127, 130},  {129, 1},    {257, 3},
           {300, 250}, {1, 4500}, {12, 4500}, {100, 1500}, {1100, 1030}}) {
    const auto weight = random_weight(random, n, shapes, 120, 134, n % 2 == 0);
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kEven);
    expect_within_bound(random, weight.weight, plan, m);
  }
}

// Long K by few columns, which blocks share; and so many columns that they share them in turn.
TEST_P(CudaProduct, PartsOfKAreWithinTheBound) {
  Random random(4);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 4096},
                                            {mx::Format::kE3M2, mx::Format::kE3M2, 96},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 2976}};
  expect_sizes_within_bound(
      random, shapes, {{1, 40}, {16, 100}, {40, 70}, {100, 40}, {16, 2200}, {130, 40}, {300, 600}});
}

// Parts of K of every number that shares a tile through shared memory: each has at least 4 chunks
// of 64 channels, or 8 on Hopper.
TEST_P(CudaProduct, EveryNumberOfPartsIsWithinTheBound) {
  Random random(13);
  for (int64_t chunks : {8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64}) {
    expect_sizes_within_bound(random, {{mx::Format::kE2M3, mx::Format::kE2M1, chunks * 64}},
                              {{20, 40}, {40, 40}, {100, 40}});
  }
}

// One tile of so long a K that more blocks share it, through memory, than a cluster has.
TEST_P(CudaProduct, PartsOfKThroughMemoryAreWithinTheBound) {
  Random random(16);
  expect_sizes_within_bound(random, {{mx::Format::kE2M1, mx::Format::kE2M1, 16384}}, {{40, 40}});
}

// The same of tiles, of which clusters of two would take too large shares.
TEST_P(CudaProduct, PartsThroughMemoryAreWithinTheBound) {
  Random random(14);
  const int64_t rows = device_limits().multiprocessors / 16 * 128 - 100;
  expect_sizes_within_bound(random,
                            {{mx::Format::kE2M1, mx::Format::kE2M1, 64 * 80},
                             {mx::Format::kE4M3, mx::Format::kE4M3, 64 * 40}},
                            {{rows, 6 * 256 - 8}});
}

// Rings of as many chunks as there are, which depends on the widest format, and more of a block.
TEST_P(CudaProduct, PartsOfOneFormatAreWithinTheBound) {
  Random random(10);
  for (mx::Format format : {mx::Format::kE2M1, mx::Format::kE3M2}) {
    expect_sizes_within_bound(random, {{format, format, 6144}}, {{130, 40}, {300, 600}});
  }
}

// As many tiles of 256 by 128, or more, as the GPU has multiprocessors: blocks take shares of the
// first and then others whole, or only whole ones. And fewer rows by many columns.
TEST_P(CudaProduct, ManyTilesAreWithinTheBound) {
  Random random(9);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 448},
                                            {mx::Format::kE2M3, mx::Format::kE4M3, 160},
                                            {mx::Format::kE3M2, mx::Format::kE3M2, 96},
                                            {mx::Format::kE4M3, std::nullopt, 320}};
  const auto tiles = [](int64_t rows, int64_t columns) {
    return std::pair(rows * 128 - 100, columns * 256 - 8);
  };
  const int64_t processors = device_limits().multiprocessors;
  expect_sizes_within_bound(random, shapes,
                            {tiles(2, processors + 1),
                             tiles(3, processors / 2),
                             tiles(2, processors),
                             tiles(9, processors / 4),
                             {28, processors * 150},
                             {60, processors * 300}});
}

// One after another, in turn and overlapping: sums and counters that blocks leave are for the next.
TEST_P(CudaProduct, OneWorkspaceServesProductsOfAnySize) {
  Random random(11);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 2048},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 1024}};
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  // So wide that blocks share tiles through memory, and so narrow that clusters do.
  const int64_t wide = int64_t{device_limits().multiprocessors} * 192 + 40;
  struct Case {
    const PackedWeight* weight;
    HostExactRows rows;
    DeviceArray<__nv_bfloat16> y;
    std::vector<float> expected;
  };
  std::vector<std::unique_ptr<PackedWeight>> weights;
  std::vector<Case> cases;
  for (int64_t n : {wide, int64_t{300}}) {
    const auto weight = random_weight(random, n, shapes, 120, 134, true);
    weights.push_back(std::make_unique<PackedWeight>(weight.weight, nullptr));
    for (int64_t m : {130, 16, 100, 300, 28, 130, 1, 40}) {
      const std::vector<float> x = random_rows(random, m * plan.k);
      HostExactRows rows(quantize_rows(plan, m, x.data()));
      Workspace alone;
      std::vector<float> expected = product(*weights.back(), rows.view(), alone);
      cases.push_back({weights.back().get(), std::move(rows), DeviceArray<__nv_bfloat16>(m * n),
                       std::move(expected)});
    }
  }
  Workspace shared;
  for (bool overlap : {false, true}) {
    SCOPED_TRACE(overlap);
    for (const Case& each : cases) testing::poison(each.y);
    for (const Case& each : cases) {
      multiply(*each.weight, each.rows.view(), each.y.data(), shared, nullptr, overlap, GetParam());
    }
    for (const Case& each : cases) {
      EXPECT_EQ(testing::floats_of(each.y), each.expected)
          << each.rows.view().m << " rows by " << each.weight->n();
    }
  }
}

// One-hot activations return the dequantized weight bit for bit, with every scale byte that is
// special, for as few rows at a time as there are kernels.
TEST_P(CudaProduct, OneHotActivationsReturnTheWeight) {
  Random random(3);
  for (mx::Format format : mx::kOperandFormats) {
    for (const auto& activation : activation_formats()) {
      for (int scale_byte : {0, 1, 27, 127, 227, 254}) {
        for (int power : {0, -20, 20}) {
          const std::vector<SegmentShape> shapes = {{format, activation, 96}};
          const auto weight = random_weight(random, 5, shapes, scale_byte, scale_byte, false);
          const auto plan = random_plan(random, shapes, mx::ScaleRule::kFloor);
          constexpr int64_t kRows = 192;  // each channel's twice
          std::vector<float> x(kRows * 96);
          for (int64_t j = 0; j < kRows; ++j) {
            x[j * 96 + plan.permutation[j % 96]] = std::ldexp(1.0f, power);
          }
          std::vector<uint8_t> codes(5 * 96);
          mx::unpack(format, weight.codes[0], codes);
          const PackedWeight packed(weight.weight, nullptr);
          Workspace workspace;
          for (int64_t m : {1, 8, 16, 32, 64, 96, 192}) {
            for (int64_t first = 0; first < kRows; first += m) {
              const int64_t count = std::min(m, kRows - first);
              const HostExactRows rows(quantize_rows(plan, count, x.data() + first * 96));
              const auto y = product(packed, rows.view(), workspace);
              for (int64_t i = 0; i < count * 5; ++i) {
                const int64_t channel = (first + i / 5) % 96;
                const double element = mx::decode(format, codes[i % 5 * 96 + channel]);
                const double exact = std::ldexp(element, scale_byte - 127 + power);
                ASSERT_EQ(mx::to_float(mx::to_bfloat16(exact)), y[i])
                    << mx::name(format) << " scale " << scale_byte << " 2^" << power << " rows "
                    << m << " channel " << channel;
              }
              if (m < 32 && first >= 2 * m) break;
            }
          }
        }
      }
    }
  }
}

TEST_P(CudaProduct, ExtremeScalesComeFromTheOracle) {
  Random random(5);
  for (const auto& [low, high] : std::vector<std::pair<int, int>>{{0, 3}, {0, 254}, {250, 254}}) {
    for (int64_t m : {4, 12, 40, 80, 140}) {
      for (float size : {1e-37f, 1e-30f, 1.0f, 1e30f, 1e37f}) {
        expect_extreme_outputs(random, 9, 64, low, high, m, size);
      }
    }
  }
}

// The same where blocks share K, and one writes what others' rows and columns take from it.
TEST_P(CudaProduct, ExtremeScalesOfPartsComeFromTheOracle) {
  Random random(12);
  for (int64_t m : {4, 12, 20, 40, 80, 140}) {
    for (float size : {1e-37f, 1.0f}) expect_extreme_outputs(random, 40, 1088, 0, 254, m, size);
  }
}

// A row of the weight whose scales spread too far, one with a NaN, and rows of X with extreme
// blocks, among ordinary ones.
TEST_P(CudaProduct, RowsThatNeedMoreStandAmongOrdinaryOnes) {
  Random random(15);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE4M3, mx::Format::kE4M3, 1088}};
  constexpr int64_t kN = 300, kSpread = 70, kNan = 260, kBlocks = 1088 / 32;
  auto weight = random_weight(random, kN, shapes, 120, 134, true);
  weight.scales[0][kSpread * kBlocks + 3] = 2;
  weight.scales[0][kNan * kBlocks + 7] = mx::kScaleNan;
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  const PackedWeight packed(weight.weight, nullptr);
  for (int64_t m : {1, 16, 20, 40, 100, 140, 300}) {
    std::vector<float> x = random_rows(random, m * plan.k);
    for (int64_t row = 0; row < m; row += 13) {
      for (int64_t i = 0; i < 64; ++i) {
        float& value = x[row * plan.k + i];
        value = std::clamp(value * (row % 2 == 0 ? 0x1p120f : 0x1p-120f), -3e38f, 3e38f);
      }
    }
    const QuantizedRows rows = quantize_rows(plan, m, x.data());
    Workspace workspace;
    const auto y = product(packed, HostExactRows(rows).view(), workspace);
    int64_t wrong = 0;
    for (int64_t i = 0; i < m * kN; ++i) {
      if (i % kN == kNan) {
        wrong += std::isnan(y[i]) ? 0 : 1;
        continue;
      }
      const OracleValue exact = oracle_output(weight.weight, rows, i / kN, i % kN);
      if (!is_right(exact, plan.k, y[i])) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << m;
  }
}

TEST_P(CudaProduct, NanScaleMakesItsOutputsNan) {
  Random random(6);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE4M3, 64}};
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  // The last so wide that blocks have several tiles of 256 by 128.
  const int64_t wide = int64_t{device_limits().multiprocessors} * 300;
  for (const auto& [m, n] : std::vector<std::pair<int64_t, int64_t>>{
           {2, 3}, {10, 3}, {30, 3}, {50, 3}, {90, 3}, {170, 3}, {130, wide}, {30, wide + 3}}) {
    auto weight = random_weight(random, n, shapes, 127, 127, false);
    std::fill(weight.codes[0].begin(), weight.codes[0].end(), 0);  // also against all-zero blocks
    const int64_t column = n / 3;
    weight.scales[0][2 * column + 1] = mx::kScaleNan;  // its second block
    std::vector<float> x(m * 64, 1.0f);
    x[64 + 5] = std::numeric_limits<float>::infinity();
    Workspace workspace;
    const HostExactRows rows(quantize_rows(plan, m, x.data()));
    const auto y = product(PackedWeight(weight.weight, nullptr), rows.view(), workspace);
    int64_t wrong = 0;
    for (int64_t i = 0; i < m * n; ++i) {
      if (std::isnan(y[i]) != (i / n == 1 || i % n == column)) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << m << " " << n;
  }
}

TEST(CudaWeight, WeightsTakeAsMuchMemoryAsPacked) {
  Random random(7);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 512},
                                            {mx::Format::kE3M2, mx::Format::kE3M2, 128},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 384}};
  const auto weight = random_weight(random, 1024, shapes, 120, 134, true);
  int64_t stored = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    stored += static_cast<int64_t>(weight.codes[i].size() + weight.scales[i].size());
  }
  EXPECT_LE(static_cast<double>(PackedWeight(weight.weight, nullptr).bytes()),
            1.05 * static_cast<double>(stored));
}

// Offsets beyond 2^31 elements: a weight that repeats every PERIOD rows gives outputs that do.
TEST_P(SlowCudaProduct, WeightOfMoreThanTwoToThe31) {
  Random random(8);
  constexpr int64_t kK = 1024, kPeriod = 8 * 32, kN = (int64_t{1} << 31) / kK + 1000;
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, kK}};
  const auto period = random_weight(random, kPeriod, shapes, 120, 134, false);
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  const testing::RepeatedBytes codes(std::as_bytes(std::span(period.codes[0])), kN * kK / 2);
  const testing::RepeatedBytes scales(std::as_bytes(std::span(period.scales[0])), kN * kK / 32);
  MixedWeight weight = period.weight;
  weight.n = kN;
  weight.segments[0].codes = codes.octets();
  weight.segments[0].scales = scales.octets();
  const PackedWeight packed(weight, nullptr);
  for (int64_t m : {3, 20}) {
    const std::vector<float> x = random_rows(random, m * kK);
    const QuantizedRows rows = quantize_rows(plan, m, x.data());
    Workspace workspace;
    const auto y = product(packed, HostExactRows(rows).view(), workspace);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t column = 0; column < kPeriod; ++column) {
        const OracleValue exact = oracle_output(period.weight, rows, row, column);
        ASSERT_LE(std::fabs(y[row * kN + column] - exact.value),
                  error_bound(exact, product_additions(kK)));
      }
      for (int64_t column = kPeriod; column < kN; ++column) {
        ASSERT_EQ(y[row * kN + column], y[row * kN + column % kPeriod]) << row << " " << column;
      }
    }
  }
}

// The same of rows, which the device makes.
TEST_P(SlowCudaProduct, RowsOfMoreThanTwoToThe31) {
  Random random(9);
  constexpr int64_t kK = 1024, kPeriod = 64, kN = 40, kM = (int64_t{1} << 31) / kK + 1000;
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE4M3, kK}};
  const auto weight = random_weight(random, kN, shapes, 120, 134, true);
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  std::vector<float> x = random_rows(random, kPeriod * kK);
  for (float& value : x) value = mx::round_to_bfloat16(value);
  const DeviceArray<__nv_bfloat16> on_device(kM * kK);
  std::vector<uint16_t> bits;
  for (float value : x) bits.push_back(mx::to_bfloat16(value).bits);
  for (int64_t row = 0; row < kM; row += kPeriod) {
    const int64_t count = std::min(kPeriod, kM - row) * kK;
    check(cudaMemcpy(on_device.data() + row * kK, bits.data(), count * 2, cudaMemcpyHostToDevice),
          "copy");
  }
  const DevicePlan device_plan(plan);
  const int64_t blocks = device_plan.view().blocks;
  const DeviceArray<__nv_bfloat16> values(blocks * kM * mx::kBlockSize);
  const DeviceArray<int8_t> shifts(blocks * kM);
  const DeviceArray<uint8_t> special(kM);
  const ExactRows rows = {kM, values.data(), shifts.data(), special.data()};
  quantize(device_plan.view(), kM, PlainRows{on_device.data()}, {.exact = &rows}, nullptr);
  Workspace workspace;
  const auto y = product(PackedWeight(weight.weight, nullptr), rows, workspace);
  const QuantizedRows expected = quantize_rows(plan, kPeriod, x.data());
  for (int64_t i = 0; i < kPeriod * kN; ++i) {
    const OracleValue exact = oracle_output(weight.weight, expected, i / kN, i % kN);
    ASSERT_LE(std::fabs(y[i] - exact.value), error_bound(exact, product_additions(kK)));
  }
  for (int64_t i = kPeriod * kN; i < kM * kN; ++i) ASSERT_EQ(y[i], y[i % (kPeriod * kN)]) << i;
}

}  // namespace
}  // namespace micromix::kernels::cuda
