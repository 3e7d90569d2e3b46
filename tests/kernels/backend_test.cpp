// Every backend that a program has as subjects against the FP64 oracle: the derived bound, and
// equality where arithmetic is exact.
#include <algorithm>
#include <cmath>
#include <limits>

#include <omp.h>

#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/block.h"
#include "tests/kernels/random_linear.h"
#include "tests/kernels/subjects.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::activation_formats;
using testing::Random;
using testing::random_plan;
using testing::random_rows;
using testing::random_weight;
using testing::SegmentShape;
using testing::Subject;

class EveryBackend : public testing::BackendTest {};

void expect_within_bound(const Subject& subject, const MixedWeight& weight, const InputPlan& plan,
                         int64_t m, const std::vector<float>& x) {
  const Backend& backend = *subject.backend;
  const auto input = backend.input(plan, m, x.data());
  std::vector<float> y(m * weight.n);
  backend.multiply(*backend.prepare(weight, plan), *input, y.data());
  const QuantizedRows rows = quantize_rows(plan, m, x.data());
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t column = 0; column < weight.n; ++column) {
      const OracleValue exact = oracle_output(weight, rows, row, column);
      const double error = std::fabs(y[row * weight.n + column] - exact.value);
      ASSERT_LE(error, error_bound(exact, subject.additions(weight.k)))
          << "row " << row << " column " << column;
      ASSERT_EQ(mx::round_to_bfloat16(y[row * weight.n + column]), y[row * weight.n + column]);
    }
  }
}

TEST_P(EveryBackend, EveryOperandPairIsWithinTheBound) {
  Random random(1);
  for (mx::Format weight_format : mx::kOperandFormats) {
    for (const auto& activation : activation_formats()) {
      const std::vector<SegmentShape> shapes = {{weight_format, activation, 96}};
      const auto weight = random_weight(random, 19, shapes, 110, 140, true);
      const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
      expect_within_bound(GetParam(), weight.weight, plan, 7, random_rows(random, 7 * plan.k));
    }
  }
}

TEST_P(EveryBackend, MixedSegmentsAndAwkwardShapesAreWithinTheBound) {
  Random random(2);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 608},
                                            {mx::Format::kE2M3, mx::Format::kE4M3, 32},
                                            {mx::Format::kE3M2, std::nullopt, 64},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 320}};
  for (const auto& [m, n] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {1, 65}, {2, 40}, {3, 33}, {4, 31}, {5, 64}, {6, 16}, {13, 70}, {257, 3}}) {
    const auto weight = random_weight(random, n, shapes, 120, 134, n % 2 == 0);
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kEven);
    expect_within_bound(GetParam(), weight.weight, plan, m, random_rows(random, m * plan.k));
  }
}

// One-hot activations, one a channel, return the dequantized weight bit for bit: with every scale
// byte that is special, and ordinary ones beside.
TEST_P(EveryBackend, OneHotActivationsReturnTheWeight) {
  Random random(3);
  for (mx::Format format : mx::kOperandFormats) {
    for (const auto& activation : activation_formats()) {
      for (int scale_byte : {0, 1, 27, 127, 227, 254}) {
        for (int power : {0, -20, 20}) {
          const std::vector<SegmentShape> shapes = {{format, activation, 64}};
          auto weight = random_weight(random, 5, shapes, scale_byte, scale_byte, false);
          const auto plan = random_plan(random, shapes, mx::ScaleRule::kFloor);
          std::vector<float> x(64 * 64);
          for (int64_t j = 0; j < 64; ++j)
            x[j * 64 + plan.permutation[j]] = std::ldexp(1.0f, power);
          const Backend& backend = *GetParam().backend;
          const auto linear = backend.prepare(weight.weight, plan);
          std::vector<float> y(64 * 5), few(64 * 5);
          backend.multiply(*linear, *backend.input(plan, 64, x.data()), y.data());
          // As few rows at a time as kernels have paths of their own for.
          for (int64_t row = 0, m = 1; row < 64; row += m, m = std::min(m % 8 + 1, 64 - row)) {
            backend.multiply(*linear, *backend.input(plan, m, x.data() + row * 64),
                             few.data() + row * 5);
          }
          EXPECT_EQ(few, y);
          std::vector<uint8_t> codes(5 * 64);
          mx::unpack(format, weight.codes[0], codes);
          for (int64_t j = 0; j < 64; ++j) {
            for (int64_t row = 0; row < 5; ++row) {
              const double exact =
                  std::ldexp(static_cast<double>(mx::decode(format, codes[row * 64 + j])),
                             scale_byte - 127 + power);
              ASSERT_EQ(mx::to_float(mx::to_bfloat16(exact)), y[j * 5 + row])
                  << mx::name(format) << " scale " << scale_byte << " 2^" << power;
            }
          }
        }
      }
    }
  }
}

// Integers small enough that every partial sum is exact in FP32: the result is the exact one.
// Weights take every code; of 64 products at most 4 x 28 in units of 2^-4, or of E4M3 at most 448
// in units of 2^-9, any sum fits 24 bits.
TEST_P(EveryBackend, SmallIntegersAreExact) {
  Random random(4);
  constexpr int64_t kM = 45;  // one more at a time, up to 9
  for (mx::Format format : mx::kOperandFormats) {
    const int largest = format == mx::Format::kE4M3 ? 1 : 4;
    for (const auto& activation : activation_formats()) {
      const std::vector<SegmentShape> shapes = {{format, activation, 64}};
      const auto weight = random_weight(random, 33, shapes, 127, 127, false);
      const auto plan = random_plan(random, shapes, mx::ScaleRule::kFloor);
      std::vector<float> x(kM * 64);
      for (float& value : x) {
        value = static_cast<float>(static_cast<int>(random() % (2 * largest + 1)) - largest);
      }
      const Backend& backend = *GetParam().backend;
      const auto linear = backend.prepare(weight.weight, plan);
      std::vector<float> y(kM * 33), few(kM * 33);
      backend.multiply(*linear, *backend.input(plan, kM, x.data()), y.data());
      for (int64_t row = 0, m = 1; row < kM; row += m, m = std::min(m + 1, kM - row)) {
        backend.multiply(*linear, *backend.input(plan, m, x.data() + row * 64),
                         few.data() + row * 33);
      }
      EXPECT_EQ(few, y);
      const QuantizedRows rows = quantize_rows(plan, kM, x.data());
      for (int64_t i = 0; i < kM * 33; ++i) {
        const double exact = oracle_output(weight.weight, rows, i / 33, i % 33).value;
        ASSERT_EQ(mx::to_float(mx::to_bfloat16(exact)), y[i])
            << mx::name(format) << " output " << i;
      }
    }
  }
}

// The sign of channel CHANNEL in the PATTERN-th of four rows: all plus, all minus, and alternating
// from either sign on.
int extreme_sign(int64_t pattern, int64_t channel) {
  switch (pattern % 4) {
    case 0:
      return 1;
    case 1:
      return -1;
    default:
      return (pattern + channel) % 2 == 0 ? 1 : -1;
  }
}

// A weight [n, k] of the largest elements, their signs by extreme_sign(column, channel), all under
// one scale.
testing::RandomWeight extreme_weight(mx::Format format, int64_t n, int64_t k, int scale_byte) {
  Random unused;
  auto weight =
      random_weight(unused, n, {{format, std::nullopt, k}}, scale_byte, scale_byte, false);
  std::vector<uint8_t> codes(n * k);
  for (int64_t i = 0; i < n * k; ++i) {
    codes[i] = mx::encode(format, extreme_sign(i / k, i % k) * mx::traits(format).largest);
  }
  mx::pack(format, codes, weight.codes[0]);
  return weight;
}

// The largest elements only, at the ends and the middle of the scales that fast kernels take: every
// integer on the way is as large as it can be. A case's products are all +p or -p, p being a power
// of two times at most 15 * 255, and 4096 of them stay below 2^24: partial sums are exact in FP32
// in any order, wide ones too, and only the rounding to BF16 is left.
TEST_P(EveryBackend, LargestElementsAreExact) {
  constexpr int64_t kM = 10, kN = 36, kK = 4096;
  int64_t signs[4][4] = {};  // summed over channels, by the patterns of row and column
  for (int64_t i = 0; i < 16 * kK; ++i) {
    const int64_t row = i % 4, column = i / 4 % 4, channel = i / 16;
    signs[row][column] += extreme_sign(row, channel) * extreme_sign(column, channel);
  }
  for (mx::Format format : mx::kOperandFormats) {
    for (const auto& activation : activation_formats()) {
      for (int scale_byte : {cpu::kLowestScale, mx::kScaleOne, cpu::kHighestScale}) {
        const auto weight = extreme_weight(format, kN, kK, scale_byte);
        const InputPlan plan{kK, {}, {{format, activation, kK}}, mx::ScaleRule::kRceil, false};
        const float largest = activation ? mx::traits(*activation).largest : 0x1.FEp0f;
        const int exponent = scale_byte - mx::kScaleBias;
        std::vector<float> x(kM * kK);
        for (int64_t i = 0; i < kM * kK; ++i) {
          x[i] = std::ldexp(extreme_sign(i / kK, i % kK) * largest, exponent);
        }
        std::vector<float> y(kM * kN);
        const Backend& backend = *GetParam().backend;
        backend.multiply(*backend.prepare(weight.weight, plan), *backend.input(plan, kM, x.data()),
                         y.data());
        const double product = static_cast<double>(largest) * mx::traits(format).largest;
        for (int64_t i = 0; i < kM * kN; ++i) {
          const auto sum = static_cast<double>(signs[i / kN % 4][i % kN % 4]);
          const double exact = std::ldexp(sum * product, 2 * exponent);
          ASSERT_EQ(mx::to_float(mx::to_bfloat16(exact)), y[i])
              << mx::name(format) << " times " << (activation ? mx::name(*activation) : "bf16")
              << " scale " << scale_byte << " row " << i / kN << " column " << i % kN;
        }
      }
    }
  }
}

// Extreme scales of weight and activation together, far outside FP32: within the bound all the
// same.
TEST_P(EveryBackend, ExtremeScalesComeFromTheOracle) {
  Random random(5);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE4M3, mx::Format::kE4M3, 64}};
  for (const auto& [low, high] : std::vector<std::pair<int, int>>{{0, 3}, {0, 254}, {250, 254}}) {
    const auto weight = random_weight(random, 9, shapes, low, high, true);
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
    for (float size : {1e-30f, 1.0f, 1e30f}) {
      std::vector<float> x = random_rows(random, 4 * 64);
      for (float& value : x) value *= size;
      const Backend& backend = *GetParam().backend;
      std::vector<float> y(4 * 9);
      backend.multiply(*backend.prepare(weight.weight, plan), *backend.input(plan, 4, x.data()),
                       y.data());
      const QuantizedRows rows = quantize_rows(plan, 4, x.data());
      for (int64_t i = 0; i < 36; ++i) {
        const OracleValue exact = oracle_output(weight.weight, rows, i / 9, i % 9);
        if (std::fabs(exact.value) >= 0x1.FFp127) {
          ASSERT_TRUE(std::isinf(y[i]));
        } else {
          ASSERT_LE(std::fabs(y[i] - exact.value), error_bound(exact, GetParam().additions(64)));
        }
      }
    }
  }
}

TEST_P(EveryBackend, NanScaleMakesItsOutputsNan) {
  Random random(6);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE4M3, 64}};
  auto weight = random_weight(random, 3, shapes, 127, 127, false);
  std::fill(weight.codes[0].begin(), weight.codes[0].end(), 0);  // also against all-zero blocks
  weight.scales[0][2 * 1 + 1] = mx::kScaleNan;                   // row 1, second block
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  std::vector<float> x(2 * 64, 1.0f);
  x[64 + 5] = std::numeric_limits<float>::infinity();
  const Backend& backend = *GetParam().backend;
  std::vector<float> y(2 * 3);
  backend.multiply(*backend.prepare(weight.weight, plan), *backend.input(plan, 2, x.data()),
                   y.data());
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[2], 0.0f);
  for (int64_t i = 3; i < 6; ++i) EXPECT_TRUE(std::isnan(y[i])) << i;
}

TEST_P(EveryBackend, ResultDoesNotDependOnThreads) {
  Random random(7);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 512},
                                            {mx::Format::kE2M3, mx::Format::kE2M3, 512},
                                            {mx::Format::kE3M2, mx::Format::kE3M2, 1536}};
  const auto weight = random_weight(random, 130, shapes, 120, 134, true);
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  const std::vector<float> x = random_rows(random, 300 * plan.k);
  const Backend& backend = *GetParam().backend;
  const auto linear = backend.prepare(weight.weight, plan);
  const int threads = omp_get_max_threads();
  for (int64_t m : {1, 5, 8, 40, 300}) {
    std::vector<std::vector<float>> results;
    for (int count : {1, 2, 3}) {
      omp_set_num_threads(count);
      results.emplace_back(m * 130);
      backend.multiply(*linear, *backend.input(plan, m, x.data()), results.back().data());
    }
    EXPECT_EQ(results[0], results[1]) << m;
    EXPECT_EQ(results[0], results[2]) << m;
  }
  omp_set_num_threads(threads);
}

// The norm of rows with an addend is that of their sum, which stays; rows beside them stay too.
TEST_P(EveryBackend, NormAddsTheAddendFirst) {
  Random random(14);
  constexpr int64_t kN = 8;
  const int64_t m = 9, first = 2, count = 5, k = 64;
  const InputPlan plan{k, {}, {}, mx::ScaleRule::kRceil, false};
  const std::vector<float> x = random_rows(random, m * k);
  std::vector<float> y = random_rows(random, count * k), sum = x;
  for (float& value : y) value = mx::round_to_bfloat16(value);
  for (int64_t i = 0; i < count * k; ++i) sum[first * k + i] += y[i];
  const std::vector<float> w = random_rows(random, kN * k);
  const DenseWeight weight{kN, k, DenseType::kF32, std::as_bytes(std::span(w)), {}};
  const Backend& backend = *GetParam().backend;
  const auto linear = backend.prepare(weight);
  const auto prepared = backend.prepare(plan);
  const auto norm = backend.prepare_norm(random_rows(random, k), 1e-5);
  const auto addend = backend.buffer(BufferType::kOutput, count, k, y.data());
  const auto input = backend.make_input();
  const auto products = [&](Buffer& hidden, const Buffer* term) {
    backend.set_rmsnorm(*input, *prepared, {hidden, first, count}, term, *norm);
    std::vector<float> result(count * kN);
    backend.multiply(*linear, *input, result.data());
    return result;
  };
  const auto fused = backend.buffer(BufferType::kFloat, m, k, x.data());
  const auto plain = backend.buffer(BufferType::kFloat, m, k, sum.data());
  EXPECT_EQ(products(*fused, addend.get()), products(*plain, nullptr));
  std::vector<float> found(m * k);
  backend.read(*fused, found.data());
  EXPECT_EQ(found, sum);
  backend.write(*fused, x.data());
  backend.add({*fused, first, count}, *addend);
  backend.read(*fused, found.data());
  EXPECT_EQ(found, sum);
}

// Heads of any width, with a norm and without: the FP64 rotation of the FP64 norm.
TEST_P(EveryBackend, HeadsAreNormalizedAndRotated) {
  Random random(15);
  const Subject& subject = GetParam();
  const Backend& backend = *subject.backend;
  for (const auto& [m, heads, head_dim] :
       std::vector<std::array<int64_t, 3>>{{1, 3, 64}, {5, 2, 16}, {3, 1, 80}, {2, 4, 256}}) {
    const int64_t half = head_dim / 2;
    std::vector<float> x = random_rows(random, m * heads * head_dim);
    for (float& value : x) value = mx::round_to_bfloat16(value);
    const std::vector<float> gain = random_rows(random, head_dim);
    std::vector<float> angles(m * head_dim);
    for (int64_t i = 0; i < m * half; ++i) {
      const float angle = static_cast<float>(i);
      angles[i / half * head_dim + i % half] = std::cos(angle);
      angles[i / half * head_dim + half + i % half] = std::sin(angle);
    }
    const auto on_device = backend.buffer(BufferType::kFloat, m, head_dim, angles.data());
    for (bool normalizes : {false, true}) {
      const auto norm = normalizes ? backend.prepare_norm(gain, 1e-5) : nullptr;
      const auto placed = backend.buffer(BufferType::kOutput, m, heads * head_dim, x.data());
      backend.place_heads(*placed, norm.get(), *on_device);
      std::vector<float> found(x.size());
      backend.read(*placed, found.data());
      for (int64_t vector = 0; vector < m * heads; ++vector) {
        const float* const in = x.data() + vector * head_dim;
        const float* const cosines = angles.data() + vector / heads * head_dim;
        double squares = 0;
        for (int64_t i = 0; i < head_dim; ++i) squares += static_cast<double>(in[i]) * in[i];
        const double factor = 1 / std::sqrt(squares / static_cast<double>(head_dim) + 1e-5);
        const auto normed = [&](int64_t i) {
          return normalizes ? in[i] * factor * gain[i] : in[i];
        };
        for (int64_t i = 0; i < head_dim; ++i) {
          const double cosine = cosines[i % half], sine = cosines[half + i % half];
          const double a = normed(i) * cosine;
          const double b = normed((i + half) % head_dim) * (i < half ? -sine : sine);
          // The norm's factor (an FP32 sum of head_dim / 32 + 5 squares, the root, the quotient),
          // two products with it, one with the angle, and the sum.
          const double roundings = static_cast<double>(head_dim) / 32 + 12;
          const double error = roundings * 0x1p-24 * (std::fabs(a) + std::fabs(b)) +
                               subject.output_rounding * std::fabs(a + b);
          ASSERT_LE(std::fabs(found[vector * head_dim + i] - (a + b)), error + 0x1p-140)
              << head_dim << " vector " << vector << " channel " << i;
        }
      }
    }
  }
}

// Mixed and dense linears of ragged sizes that read one input, which is set again and again.
TEST_P(EveryBackend, ProductsTogetherEqualThoseAlone) {
  Random random(13);
  const Backend& backend = *GetParam().backend;
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 96},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 32}};
  auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  plan.keep_rows = true;
  const InputPlan dense_plan{64, {}, {}, mx::ScaleRule::kRceil, false};
  const auto first = random_weight(random, 33, shapes, 120, 134, true);
  const auto second = random_weight(random, 1, shapes, 120, 134, false);
  const std::vector<float> w = random_rows(random, 70 * plan.k);
  const DenseWeight dense{70, plan.k, DenseType::kF32, std::as_bytes(std::span(w)), {}};
  const DenseWeight other{5, 64, DenseType::kF32, std::as_bytes(std::span(w)), {}};
  const auto reused = backend.make_input();
  const std::unique_ptr<Linear> linears[] = {backend.prepare(first.weight, plan),
                                             backend.prepare(dense),
                                             backend.prepare(second.weight, plan)};
  const auto of_other = backend.prepare(other);
  for (int64_t m : {300, 1, 13, 6}) {
    const std::vector<float> x = random_rows(random, m * plan.k);
    backend.set(*reused, plan, m, x.data());
    std::vector<std::unique_ptr<Buffer>> together;
    std::vector<Product> products;
    for (const auto& linear : linears) {
      together.push_back(backend.make_buffer(BufferType::kOutput));
      products.push_back({linear.get(), together.back().get()});
    }
    backend.multiply(products, *reused);
    const auto fresh = backend.input(plan, m, x.data());
    for (size_t i = 0; i < together.size(); ++i) {
      std::vector<float> found(m * linears[i]->n()), alone(found.size());
      backend.read(*together[i], found.data());
      backend.multiply(*linears[i], *fresh, alone.data());
      EXPECT_EQ(found, alone) << m << " rows, linear " << i;
    }
    backend.set(*reused, dense_plan, m, x.data());
    std::vector<float> y(m * 5), expected(m * 5);
    backend.multiply(*of_other, *reused, y.data());
    backend.multiply(*of_other, *backend.input(dense_plan, m, x.data()), expected.data());
    EXPECT_EQ(y, expected) << m << " rows";
  }
  backend.set(*reused, plan, 0, nullptr);
  backend.multiply(*linears[0], *reused, nullptr);
}

// Results of either type: FP32 for logits, and the backend's own.
TEST_P(EveryBackend, MixedResultsAreTheSameInEveryBuffer) {
  Random random(16);
  const Backend& backend = *GetParam().backend;
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M3, mx::Format::kE2M3, 96}};
  const auto weight = random_weight(random, 33, shapes, 120, 134, true);
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  const auto input = backend.input(plan, 3, random_rows(random, 3 * plan.k).data());
  const auto linear = backend.prepare(weight.weight, plan);
  std::vector<float> expected(3 * 33), found(3 * 33);
  backend.multiply(*linear, *input, expected.data());
  const auto wide = backend.make_buffer(BufferType::kFloat);
  const Product product{linear.get(), wide.get()};
  backend.multiply({&product, 1}, *input);
  backend.read(*wide, found.data());
  EXPECT_EQ(found, expected);
}

// Dense weights of every type.
TEST_P(EveryBackend, DenseWeightsAreWithinTheBound) {
  Random random(10);
  const Subject& subject = GetParam();
  const Backend& backend = *subject.backend;
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 8},
                                                                   {1, 37, 64},
                                                                   {7, 33, 64},
                                                                   {13, 70, 100},
                                                                   {3, 5, 33},
                                                                   {1, 64, 1088},
                                                                   {5, 40, 1088},
                                                                   {60, 40, 1100},
                                                                   {500, 40, 96}}) {
    const std::vector<float> w = random_rows(random, n * k);
    std::vector<mx::BFloat16> halves;
    std::vector<float> rounded;
    for (float value : w) {
      halves.push_back(mx::to_bfloat16(value));
      rounded.push_back(mx::to_float(halves.back()));
    }
    const std::vector<float> bias = random_rows(random, n);
    const std::vector<float> x = random_rows(random, m * k);
    const auto input = backend.input({k, {}, {}, mx::ScaleRule::kRceil, false}, m, x.data());
    const auto expect_bound = [&](const DenseWeight& weight, const std::vector<float>& values) {
      std::vector<float> y(m * n);
      backend.multiply(*backend.prepare(weight), *input, y.data());
      for (int64_t i = 0; i < m * n; ++i) {
        double exact = bias[i % n], magnitude = std::fabs(exact);
        for (int64_t p = 0; p < k; ++p) {
          const double product = static_cast<double>(subject.dense_operand(x[i / n * k + p])) *
                                 static_cast<double>(subject.dense_operand(values[i % n * k + p]));
          exact += product;
          magnitude += std::fabs(product);
        }
        const double sums = static_cast<double>(subject.additions(k)) * 0x1p-23 * magnitude;
        const double rounding =
            subject.output_rounding * (std::fabs(exact) + std::fabs(bias[i % n]) + sums);
        ASSERT_LE(std::fabs(y[i] - exact), sums + rounding) << m << "x" << n << "x" << k;
      }
    };
    expect_bound({n, k, DenseType::kBF16, std::as_bytes(std::span(halves)), bias}, rounded);
    expect_bound({n, k, DenseType::kF32, std::as_bytes(std::span(w)), bias}, w);
  }
}

INSTANTIATE_TEST_SUITE_P(, EveryBackend, ::testing::ValuesIn(testing::subjects()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace micromix::kernels
