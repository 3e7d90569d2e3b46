// What only backends on the host show: their inputs.
#include <cmath>

#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
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

class HostInput : public testing::BackendTest {};

// Fused inputs equal the plain one on the values before rounding, and those their definition.
TEST_P(HostInput, FusedOnesAreTheirDefinition) {
  Random random(8);
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 64}};
  const auto weight = random_weight(random, 17, shapes, 120, 134, false);
  auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  plan.keep_rows = true;
  const int64_t m = 5;
  const std::vector<float> a = random_rows(random, m * 64);
  const std::vector<float> b = random_rows(random, m * 64);
  const std::vector<float> gain = random_rows(random, 64);
  const Backend& backend = *GetParam().backend;
  const auto linear = backend.prepare(weight.weight, plan);
  const auto same_as_plain = [&](const Input& fused) {
    std::vector<float> y(m * 17), expected(m * 17);
    backend.multiply(*linear, fused, y.data());
    backend.multiply(*linear, *backend.input(plan, m, backend.rows(fused).data()), expected.data());
    EXPECT_EQ(y, expected);
  };
  const auto normed = backend.make_input(), gated = backend.make_input();
  const auto prepared = backend.prepare(plan);
  const auto hidden = backend.buffer(BufferType::kFloat, m, 64, a.data());
  const auto gate = backend.buffer(BufferType::kOutput, m, 64, a.data());
  const auto up = backend.buffer(BufferType::kOutput, m, 64, b.data());
  const auto rms_norm = backend.prepare_norm(gain, 1e-5f);
  backend.set_rmsnorm(*normed, *prepared, *hidden, nullptr, *rms_norm);
  backend.set_swiglu(*gated, *prepared, *gate, *up);
  same_as_plain(*normed);
  same_as_plain(*gated);
  for (int64_t row = 0; row < m; ++row) {
    double squares = 0;
    for (int64_t j = 0; j < 64; ++j) squares += std::pow(a[row * 64 + j], 2.0);
    for (int64_t j = 0; j < 64; ++j) {
      const int64_t i = row * 64 + j;
      const double norm = a[i] / std::sqrt(squares / 64 + static_cast<double>(1e-5f)) * gain[j];
      // Three FP32 roundings: the factor's, and two products'.
      EXPECT_LE(std::fabs(backend.rows(*normed)[i] - norm), std::fabs(norm) * 3.01 * 0x1p-24);
      const double silu = a[i] / (1 + std::exp(-static_cast<double>(a[i]))) * b[i];
      // exp (4 ulp, each 2^-23), the sum, the quotient and the product. Below -88.7 exp(-gate)
      // overflows and the result is zero, where silu is smaller than 2^-121.
      const double bound = std::fabs(silu) * 12 * 0x1p-24 + 0x1p-121 * std::fabs(b[i]) + 0x1p-149;
      EXPECT_LE(std::fabs(backend.rows(*gated)[i] - silu), bound);
    }
  }
}

// Rows of every kind for every format and rule: what a CPU input holds is the oracle's, and its
// codes where they have no sign of zero to lose.
TEST(CpuQuantizer, EqualsTheOracle) {
  Random random(9);
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    const auto backend = make_cpu_backend(*kernels);
    for (mx::Format weight : {mx::Format::kE2M1, mx::Format::kE4M3}) {
      for (const auto& format : activation_formats()) {
        for (mx::ScaleRule rule : mx::kScaleRules) {
          const auto plan = random_plan(random, {{weight, format, 96}}, rule);
          const int64_t m = 33;
          std::vector<float> x = random_rows(random, m * 96);
          for (int64_t row = 0; row < m; ++row) {
            for (int64_t j = 0; j < 96; ++j) {
              float& value = x[row * 96 + j];
              // Magnitudes from subnormal to near the largest; all extreme; halves between codes.
              if (row < 16) value *= std::ldexp(1.0f, static_cast<int>(row * 17) - 140);
              if (row == 16) value = value < 0 ? -0x1.FEp127f : 0x1.FEp127f;
              if (row == 17) value = 0;
              if (row >= 18 && row < 26) value = static_cast<float>(random() % 256) / 16;
            }
          }
          const auto input = backend->input(plan, m, x.data());
          const QuantizedRows expected = quantize_rows(plan, m, x.data());
          for (int64_t row = 0; row < m; ++row) {
            const QuantizedRows found = cpu_quantized_row(*input, row);
            for (int64_t j = 0; j < 96; ++j) {
              if (!format) {
                ASSERT_EQ(found.values[j], expected.values[row * 96 + j]);
                continue;
              }
              ASSERT_EQ(found.scales[j / 32], expected.scales[row * 3 + j / 32]) << row;
              ASSERT_EQ(mx::decode(*format, found.codes[j]),
                        mx::decode(*format, expected.codes[row * 96 + j]))
                  << kernels->name << " " << mx::name(*format) << " " << mx::name(rule) << " row "
                  << row << " channel " << j;
            }
          }
        }
      }
    }
  }
}

void expect_oracle_inputs(const cpu::Kernels& kernels, const InputPlan& plan, int64_t m,
                          const std::vector<float>& x) {
  const auto backend = make_cpu_backend(kernels);
  const auto input = backend->input(plan, m, x.data());
  const QuantizedRows expected = quantize_rows(plan, m, x.data());
  for (int64_t row = 0; row < m; ++row) {
    const QuantizedRows found = cpu_quantized_row(*input, row);
    int64_t channel = 0;
    for (const InputPlan::Segment& segment : plan.segments) {
      for (const int64_t end = channel + segment.channels; channel < end; ++channel) {
        const int64_t i = row * plan.k + channel;
        ASSERT_EQ(found.scales[channel / 32], expected.scales[i / 32])
            << kernels.name << " " << m << " rows, row " << row << ", channel " << channel;
        ASSERT_EQ(mx::decode(*segment.format, found.codes[channel]),
                  mx::decode(*segment.format, expected.codes[i]))
            << kernels.name << " " << m << " rows, row " << row << ", channel " << channel;
      }
    }
  }
}

// Halves of every element's spacing, of blocks whose scales differ.
std::vector<float> rows_with_ties(Random& random, int64_t count) {
  std::vector<float> x(count);
  for (float& value : x) {
    const auto bits = static_cast<float>(static_cast<int>(random() % 1024) - 512);
    value = std::ldexp(bits, static_cast<int>(random() % 5) - 12);
  }
  return x;
}

// Tiles of every number of rows, whose scales the fast path takes.
TEST(CpuQuantizer, TilesOfEverySizeEqualTheOracle) {
  Random random(11);
  std::vector<std::vector<SegmentShape>> plans = {{{mx::Format::kE2M1, mx::Format::kE2M1, 608},
                                                   {mx::Format::kE2M3, mx::Format::kE2M3, 32},
                                                   {mx::Format::kE2M1, mx::Format::kE4M3, 64},
                                                   {mx::Format::kE4M3, mx::Format::kE4M3, 320}}};
  for (mx::Format weight : {mx::Format::kE2M1, mx::Format::kE4M3}) {
    for (mx::Format format : mx::kOperandFormats) plans.push_back({{weight, format, 640}});
  }
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    for (const auto& shapes : plans) {
      for (mx::ScaleRule rule : mx::kScaleRules) {
        for (int64_t m = 1; m <= 13; ++m) {
          auto plan = random_plan(random, shapes, rule);
          if (m % 2 == 0) plan.permutation.clear();
          std::vector<float> x = rows_with_ties(random, m * plan.k);
          if (m % 3 == 0) std::fill_n(x.begin(), plan.k / 2, 0.0f);
          expect_oracle_inputs(*kernels, plan, m, x);
        }
      }
    }
  }
}

// Every BF16 magnitude of ten binades, and a binade above them every one that may be the largest of
// a block: a row alone, and a tile of rows whose scales differ.
TEST(CpuQuantizer, EveryMagnitudeEqualsTheOracle) {
  Random random(13);
  constexpr int64_t kBlocks = 128, kRows = cpu::kTileRows;
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    for (mx::Format format : mx::kOperandFormats) {
      for (mx::ScaleRule rule : mx::kScaleRules) {
        const auto plan = random_plan(random, {{format, format, kBlocks * 32}}, rule);
        std::vector<float> gathered, x(kRows * plan.k);
        for (int next = 0; std::ssize(gathered) < plan.k;) {
          const bool is_largest = gathered.size() % 32 == 0;
          const int below =
              is_largest ? static_cast<int>(gathered.size()) / 32 : 128 + next++ % 1280;
          const float value =
              std::ldexp(1.0f + static_cast<float>(127 - below % 128) / 128.0f, -(below / 128));
          gathered.push_back(random() % 2 == 0 ? value : -value);
        }
        for (int64_t row = 0; row < kRows; ++row) {
          for (int64_t i = 0; i < plan.k; ++i) {
            x[row * plan.k + plan.permutation[i]] =
                std::ldexp(gathered[(i + row * 32) % plan.k], static_cast<int>(3 * row));
          }
        }
        expect_oracle_inputs(*kernels, plan, 1, x);
        expect_oracle_inputs(*kernels, plan, kRows, x);
      }
    }
  }
}

// A block of subnormals is neither zero nor common.
TEST(CpuQuantizer, SubnormalBlocksEqualTheOracle) {
  Random random(12);
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    for (int64_t m = 1; m <= cpu::kTileRows; ++m) {
      for (bool all : {false, true}) {
        auto plan = random_plan(random,
                                {{mx::Format::kE2M1, mx::Format::kE2M1, 96},
                                 {mx::Format::kE4M3, mx::Format::kE4M3, 32}},
                                mx::ScaleRule::kRceil);
        plan.permutation.clear();
        std::vector<float> x = rows_with_ties(random, m * plan.k);
        const int64_t first = all ? 0 : (m - 1) * plan.k + 32;
        std::fill_n(x.begin() + first, all ? m * plan.k : 32, -0x1p-130f);
        expect_oracle_inputs(*kernels, plan, m, x);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, HostInput, ::testing::ValuesIn(testing::subjects()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace micromix::kernels
