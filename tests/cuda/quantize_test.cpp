// The fused quantizers against the oracle: codes, scales and exact rows bit for bit, normalised and
// gated values by derived bounds.
#include "micromix/kernels/cuda/quantize.h"

#include <cmath>
#include <limits>

#include "micromix/kernels/cuda/code_rows.h"
#include "micromix/kernels/cuda/device_plan.h"
#include "tests/cuda/quantized_rows.h"
#include "tests/kernels/random_linear.h"
#include "tests/testing.h"

namespace micromix::kernels::cuda {
namespace {

using testing::Bits;
using testing::QuantizedOnDevice;
using testing::Random;
using testing::random_plan;
using testing::SegmentShape;
using testing::to_floats;

constexpr mx::Format E2M1 = mx::Format::kE2M1, E2M3 = mx::Format::kE2M3, E3M2 = mx::Format::kE3M2,
                     E4M3 = mx::Format::kE4M3;

class Quantize : public ::testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    ASSERT_EQ(cudaGetDeviceCount(&devices), cudaSuccess);
    ASSERT_GT(devices, 0);
  }
};
using SlowQuantize = Quantize;

int below(Random& random, int end) {
  return static_cast<int>(random() % static_cast<unsigned>(end));
}

uint16_t sign(Random& random) {
  return static_cast<uint16_t>(random() << 15);
}

// BF16 bits of a number with this exponent field.
uint16_t with_exponent(Random& random, int field) {
  return sign(random) | static_cast<uint16_t>(field << 7 | below(random, 128));
}

// Halfway between two neighbouring elements of FORMAT, times 2^EXPONENT.
uint16_t tie(Random& random, mx::Format format, int exponent) {
  const int codes = 1 << (mx::traits(format).bits - 1);
  const int code = below(random, codes - 2);  // E4M3's last code is NaN
  const float middle = (mx::decode(format, code) + mx::decode(format, code + 1)) / 2;
  return sign(random) | mx::to_bfloat16(std::ldexp(middle, exponent)).bits;
}

enum class Kind {
  kNormal,
  kZeros,
  kSubnormal,
  kAnyExponent,
  kNearExponents,
  kTies,
  kNan,
  kInfinity,
  kHuge,
  kTiny,
  kCount
};

// 32 BF16 values that are hard on a quantizer to FORMAT.
void hostile_block(Random& random, Kind kind, mx::Format format, uint16_t* out) {
  const int middle = below(random, 200) - 100;
  std::normal_distribution<float> normal;
  for (int i = 0; i < mx::kBlockSize; ++i) {
    switch (kind) {
      case Kind::kZeros:
        out[i] = sign(random);
        break;
      case Kind::kSubnormal:
        out[i] = with_exponent(random, 0);
        break;
      case Kind::kAnyExponent:
        out[i] = with_exponent(random, below(random, 255));
        break;
      case Kind::kNearExponents:
        out[i] = with_exponent(random, 127 + middle - below(random, 13));
        break;
      case Kind::kTies:
        out[i] = tie(random, format, middle);
        break;
      case Kind::kHuge:
        out[i] = with_exponent(random, 254 - below(random, 20));
        break;
      case Kind::kTiny:
        out[i] = with_exponent(random, below(random, 12));
        break;
      default:
        out[i] = mx::to_bfloat16(normal(random) * std::exp(2 * normal(random))).bits;
    }
  }
  if (kind == Kind::kNan) out[below(random, mx::kBlockSize)] = sign(random) | 0x7FC1;
  if (kind == Kind::kInfinity) out[below(random, mx::kBlockSize)] = sign(random) | 0x7F80;
}

// Rows whose blocks, once gathered, are hostile ones of all kinds; in odd rows from the fifth on
// ordinary ones, so that there are rows without special blocks.
Bits hostile_rows(Random& random, const InputPlan& plan, int64_t m) {
  Bits x(m * plan.k);
  uint16_t block[mx::kBlockSize];
  for (int64_t row = 0; row < m; ++row) {
    int64_t channel = 0;
    for (const InputPlan::Segment& segment : plan.segments) {
      for (int64_t end = channel + segment.channels; channel < end; channel += mx::kBlockSize) {
        const bool ordinary = row >= 5 && row % 2 == 1;
        const auto kind =
            ordinary ? Kind::kNormal : Kind{below(random, static_cast<int>(Kind::kCount))};
        hostile_block(random, kind, segment.format.value_or(segment.weight), block);
        for (int i = 0; i < mx::kBlockSize; ++i) {
          const int64_t to = plan.permutation.empty() ? channel + i : plan.permutation[channel + i];
          x[row * plan.k + to] = block[i];
        }
      }
    }
  }
  return x;
}

const __nv_bfloat16* bf16(const DeviceArray<uint16_t>& array) {
  return reinterpret_cast<const __nv_bfloat16*>(array.data());
}

void wait() {
  check(cudaDeviceSynchronize(), "quantize");
}

void expect_plain(const InputPlan& plan, int64_t m, const Bits& x, bool exact = true,
                  bool codes = true, bool rows = true) {
  SCOPED_TRACE(::testing::Message()
               << "m " << m << ", k " << plan.k << ", rule " << mx::name(plan.scale_rule));
  const DevicePlan device_plan(plan);
  const DeviceArray<uint16_t> device_x{std::span<const uint16_t>(x)};
  QuantizedOnDevice outputs(plan, m);
  quantize(device_plan.view(), m, PlainRows{bf16(device_x)}, outputs.wanted(exact, codes, rows),
           nullptr);
  wait();
  if (rows) {
    EXPECT_TRUE(outputs.rows() == x);
  }
  outputs.expect_oracle_of(to_floats(x));
}

// Few rows, which a cluster shares where they are long, more than there are multiprocessors, and so
// many that two are taken at a time, the last alone.
constexpr int64_t kPairedRows = 1501;
constexpr int64_t kRowCounts[] = {1, 3, 16, 257, kPairedRows};
constexpr int64_t kMostValues = 7'000'000;  // of such a case

TEST_F(Quantize, EveryFormatAndRule) {
  Random random(1);
  for (const mx::Format format : mx::kOperandFormats) {
    for (const mx::ScaleRule rule : mx::kScaleRules) {
      SCOPED_TRACE(mx::name(format));
      const InputPlan plan = random_plan(random, {{format, format, 1056}}, rule);
      for (const int64_t m : kRowCounts) expect_plain(plan, m, hostile_rows(random, plan, m));
    }
  }
}

// Every exponent of a block's largest magnitude, with mantissas on both sides of each rule's steps.
TEST_F(Quantize, EveryExponent) {
  Random random(2);
  for (const mx::Format format : mx::kOperandFormats) {
    for (const mx::ScaleRule rule : mx::kScaleRules) {
      SCOPED_TRACE(mx::name(format));
      InputPlan plan = random_plan(random, {{format, format, 255 * mx::kBlockSize}}, rule);
      plan.permutation.clear();
      const int64_t m = 128;  // a mantissa each
      Bits x(m * plan.k);
      for (int64_t row = 0; row < m; ++row) {
        for (int field = 0; field < 255; ++field) {
          uint16_t* block = x.data() + row * plan.k + field * mx::kBlockSize;
          const auto largest = static_cast<uint16_t>(field << 7 | row);
          for (int i = 0; i < mx::kBlockSize; ++i) {
            block[i] = sign(random) | static_cast<uint16_t>(std::max(0, largest - 13 * i * i));
          }
          std::shuffle(block, block + mx::kBlockSize, random);
        }
      }
      expect_plain(plan, m, x);
    }
  }
}

std::vector<std::vector<SegmentShape>> mixes() {
  return {
      {{E2M1, E2M1, 32}},
      {{E4M3, std::nullopt, 32}},
      {{E2M1, E4M3, 64}},
      {{E2M1, E2M1, 32}, {E2M3, E2M3, 32}},
      {{E2M3, E2M3, 96}},
      {{E2M1, E2M1, 32}, {E3M2, std::nullopt, 32}, {E4M3, E4M3, 32}},
      {{E2M1, E2M1, 32}, {E2M3, E2M3, 32}, {E3M2, E3M2, 32}, {E4M3, E4M3, 32}},
      {{E2M1, E2M3, 2048}, {E2M3, E2M3, 1024}, {E3M2, E3M2, 512}, {E4M3, E4M3, 512}},
      {{E2M1, std::nullopt, 2080}, {E4M3, E4M3, 2016}},
      {{E2M1, E2M1, 7200}, {E3M2, E3M2, 4064}, {E4M3, E4M3, 3072}},
      {{E2M1, E2M1, 40000}, {E2M3, E2M3, 20000}, {E4M3, E4M3, 5536}},
  };
}

TEST_F(Quantize, ShapesAndSegments) {
  Random random(3);
  int count = 0;
  for (const std::vector<SegmentShape>& mix : mixes()) {
    InputPlan plan = random_plan(random, mix, mx::kScaleRules[count % mx::kScaleRules.size()]);
    if (count++ % 4 == 3) plan.permutation.clear();
    for (const int64_t m : kRowCounts) {
      if (m == kPairedRows && m * plan.k > kMostValues) continue;
      expect_plain(plan, m, hostile_rows(random, plan, m));
    }
  }
}

// A plan with BF16 rows has no codes.
TEST_F(Quantize, OutputsAreIndependent) {
  Random random(4);
  for (const auto& wide : {std::optional<mx::Format>(), std::optional(E2M3)}) {
    const InputPlan plan = random_plan(
        random, {{E2M1, E2M1, 96}, {E2M3, wide, 32}, {E4M3, E4M3, 160}}, mx::ScaleRule::kRceil);
    for (const int64_t m : kRowCounts) {
      const Bits x = hostile_rows(random, plan, m);
      expect_plain(plan, m, x, true, false, false);
      if (wide) expect_plain(plan, m, x, false, true, false);
      expect_plain(plan, m, x, false, false, true);
      expect_plain(plan, m, x, true, false, true);
    }
  }
}

// Ordinary BF16 rows, a few rows of zeros among them.
Bits ordinary_rows(Random& random, int64_t m, int64_t k) {
  Bits x;
  for (const float value : testing::random_rows(random, m * k)) {
    x.push_back(mx::to_bfloat16(value).bits);
  }
  for (int64_t row = 2; row < m; row += 7) std::fill_n(x.begin() + row * k, k, uint16_t{0});
  return x;
}

struct RmsNormInput {
  std::vector<float> residual, gain;
  Bits addend;  // empty: none
  float eps = 1e-5f;
};

RmsNormInput random_rmsnorm(Random& random, int64_t m, int64_t k, bool with_addend) {
  RmsNormInput input;
  input.residual = testing::random_rows(random, m * k);
  for (int64_t row = 2; row < m; row += 7) {
    std::fill_n(input.residual.begin() + row * k, k, 0.0f);
  }
  input.gain = testing::random_rows(random, k);
  if (with_addend) input.addend = ordinary_rows(random, m, k);
  return input;
}

// Launches, checks the residual, leaves it in INPUT.
void run_rmsnorm(const InputPlan& plan, int64_t m, RmsNormInput& input,
                 const QuantizedOutputs& outputs) {
  const DevicePlan device_plan(plan);
  const DeviceArray<float> residual{std::span<const float>(input.residual)};
  const DeviceArray<float> gain{std::span<const float>(input.gain)};
  const DeviceArray<uint16_t> addend{std::span<const uint16_t>(input.addend)};
  quantize(device_plan.view(), m,
           RmsNormRows{residual.data(), input.addend.empty() ? nullptr : bf16(addend), gain.data(),
                       input.eps},
           outputs, nullptr);
  wait();
  for (size_t i = 0; i < input.addend.size(); ++i) {
    input.residual[i] += mx::to_float({input.addend[i]});
  }
  const std::vector<float> found = residual.to_host();
  EXPECT_EQ(std::memcmp(found.data(), input.residual.data(), found.size() * sizeof(float)), 0)
      << "residual";
}

// ROWS against FP64. With u = 2^-24: squares, all positive, are summed in chains of at most C = 8
// additions in a thread, 5 in its warp, ceil(k / 8192) between warps and 5 again, so their sum is
// off by (C + 1) u relatively with the squares' own rounding, mean + eps by (C + 3) u, its root by
// half of that and u, one over it and the two products by 3 u more. Then BF16 rounds once, by 2^-8,
// or by half its least subnormal.
void expect_rmsnorm_bound(const RmsNormInput& input, int64_t m, int64_t k, const Bits& rows) {
  const double additions = 8 + 5 + static_cast<double>((k + 8191) / 8192) + 5;
  const double relative = 1.001 * ((additions + 3) / 2 + 4) * 0x1p-24;
  for (int64_t row = 0; row < m; ++row) {
    const float* x = input.residual.data() + row * k;
    double squares = 0;
    for (int64_t j = 0; j < k; ++j) squares += static_cast<double>(x[j]) * x[j];
    const double factor = 1 / std::sqrt(squares / static_cast<double>(k) + input.eps);
    for (int64_t j = 0; j < k; ++j) {
      const double exact = x[j] * factor * input.gain[j];
      const double bound = std::fabs(exact) * (relative + 0x1p-8 * (1 + relative)) + 0x1p-133;
      const double error = std::fabs(mx::to_float({rows[row * k + j]}) - exact);
      ASSERT_LE(error, bound) << "row " << row << ", channel " << j;
    }
  }
}

// Codes and rows, and EXACT rows if wanted.
void expect_rmsnorm(const InputPlan& plan, int64_t m, RmsNormInput input, bool exact) {
  QuantizedOnDevice outputs(plan, m);
  run_rmsnorm(plan, m, input, outputs.wanted(exact, true, true));
  const Bits rows = outputs.rows();
  expect_rmsnorm_bound(input, m, plan.k, rows);
  outputs.expect_oracle_of(to_floats(rows));
}

TEST_F(Quantize, RmsNorm) {
  Random random(5);
  for (const std::vector<SegmentShape>& mix : mixes()) {
    const InputPlan plan = random_plan(random, mix, mx::ScaleRule::kEven);
    for (const int64_t m : kRowCounts) {
      if (m * plan.k > kMostValues) continue;
      for (const bool with_addend : {false, true}) {
        SCOPED_TRACE(::testing::Message()
                     << "m " << m << ", k " << plan.k << ", addend " << with_addend);
        expect_rmsnorm(plan, m, random_rmsnorm(random, m, plan.k, with_addend), true);
      }
    }
  }
}

// A NaN or an infinity in a row is one of the whole row, and of no other.
TEST_F(Quantize, RmsNormOfRowsThatAreNotFinite) {
  Random random(6);
  const InputPlan plan =
      random_plan(random, {{E2M1, E2M1, 2048}, {E2M3, std::nullopt, 64}}, mx::ScaleRule::kFloor);
  const int64_t m = kPairedRows;
  RmsNormInput input = random_rmsnorm(random, m, plan.k, false);
  input.residual[3 * plan.k + 17] = std::numeric_limits<float>::quiet_NaN();
  input.residual[200 * plan.k + 40] = std::numeric_limits<float>::infinity();
  QuantizedOnDevice outputs(plan, m);
  const QuantizedOutputs wanted = outputs.wanted(true, true, true);
  const DevicePlan device_plan(plan);
  const DeviceArray<float> residual{std::span<const float>(input.residual)};
  const DeviceArray<float> gain{std::span<const float>(input.gain)};
  quantize(device_plan.view(), m, RmsNormRows{residual.data(), nullptr, gain.data(), input.eps},
           wanted, nullptr);
  wait();
  const Bits rows = outputs.rows();
  for (int64_t row = 0; row < m; ++row) {
    int64_t nans = 0;
    for (int64_t j = 0; j < plan.k; ++j) nans += testing::is_nan(rows[row * plan.k + j]);
    // x / infinity is zero but for the infinity itself.
    EXPECT_EQ(nans, row == 3 ? plan.k : row == 200 ? 1 : 0) << "row " << row;
  }
  outputs.expect_oracle_of(to_floats(rows));
}

// A row's values do not depend on how many rows stand beside it, nor on whether a cluster shares
// it.
TEST_F(Quantize, RmsNormIsTheSameInAnyBatch) {
  Random random(7);
  for (const int64_t k : {4096, 14336}) {
    SCOPED_TRACE(::testing::Message() << "k " << k);
    const InputPlan plan = random_plan(random, {{E4M3, E4M3, k}}, mx::ScaleRule::kRceil);
    const int64_t m = kPairedRows;
    RmsNormInput all = random_rmsnorm(random, m, k, false);
    QuantizedOnDevice outputs(plan, m);
    run_rmsnorm(plan, m, all, outputs.wanted(true, false, true));
    const Bits rows = outputs.rows();
    for (const int64_t row : {int64_t{0}, int64_t{1}, m / 2, m - 1}) {
      RmsNormInput one;
      one.gain = all.gain;
      const auto first = all.residual.begin() + row * k;
      one.residual.assign(first, first + k);
      QuantizedOnDevice single(plan, 1);
      run_rmsnorm(plan, 1, one, single.wanted(true, false, true));
      EXPECT_TRUE(single.rows() == Bits(rows.begin() + row * k, rows.begin() + (row + 1) * k))
          << "row " << row;
    }
  }
}

// Blocks that take three pairs, so that both places in which rows are made come again.
TEST_F(Quantize, PlacesComeAgain) {
  Random random(10);
  const InputPlan plan = random_plan(
      random, {{E2M1, E2M1, 2176}, {E3M2, E3M2, 640}, {E4M3, E4M3, 1280}}, mx::ScaleRule::kRceil);
  const int64_t m = 2001;
  expect_plain(plan, m, ordinary_rows(random, m, plan.k), false, true, false);
  expect_rmsnorm(plan, m, random_rmsnorm(random, m, plan.k, true), false);
}

// ROWS against FP64. With u = 2^-24: silu() is off by (1.25 |gate| + 8) u (row_sources.cuh), and
// the product with up rounds once. Below gates of -87 the result may be zero instead of at most
// 89 * 2^-126 times up.
void expect_swiglu_bound(const Bits& gate, const Bits& up, const Bits& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const double g = mx::to_float({gate[i]}), u = mx::to_float({up[i]});
    const double relative = 1.001 * (1.25 * std::fmax(-g, 0) + 9) * 0x1p-24;
    const double exact = g / (1 + std::exp(-g)) * u;
    const double overflow = g < -87 ? 89 * 0x1p-126 * std::fabs(u) : 0;
    const double bound =
        std::fabs(exact) * (relative + 0x1p-8 * (1 + relative)) + 0x1p-133 + overflow;
    ASSERT_LE(std::fabs(mx::to_float({rows[i]}) - exact), bound)
        << "gate " << g << ", up " << u << " at " << i;
  }
}

TEST_F(Quantize, Swiglu) {
  Random random(8);
  for (const std::vector<SegmentShape>& mix : mixes()) {
    const InputPlan plan = random_plan(random, mix, mx::ScaleRule::kRceil);
    for (const int64_t m : kRowCounts) {
      if (m * plan.k > kMostValues) continue;
      SCOPED_TRACE(::testing::Message() << "m " << m << ", k " << plan.k);
      const Bits gate = ordinary_rows(random, m, plan.k), up = ordinary_rows(random, m, plan.k);
      const DevicePlan device_plan(plan);
      const DeviceArray<uint16_t> device_gate{std::span<const uint16_t>(gate)};
      const DeviceArray<uint16_t> device_up{std::span<const uint16_t>(up)};
      QuantizedOnDevice outputs(plan, m);
      quantize(device_plan.view(), m, SwigluRows{bf16(device_gate), bf16(device_up)},
               outputs.wanted(true, true, true), nullptr);
      wait();
      const Bits rows = outputs.rows();
      expect_swiglu_bound(gate, up, rows);
      outputs.expect_oracle_of(to_floats(rows));
    }
  }
}

// Rows for a dense product only: any K.
TEST_F(Quantize, RowsAlone) {
  Random random(9);
  for (const int64_t k : {1, 7, 8, 33, 100, 4095, 65535}) {
    for (const int64_t m : {1, 5, 150}) {
      SCOPED_TRACE(::testing::Message() << "m " << m << ", k " << k);
      InputPlan plan;
      plan.k = k;
      const Bits x = ordinary_rows(random, m, k), y = ordinary_rows(random, m, k);
      expect_plain(plan, m, x, false, false, true);

      const DevicePlan device_plan(plan);
      const DeviceArray<uint16_t> gate{std::span<const uint16_t>(x)};
      const DeviceArray<uint16_t> up{std::span<const uint16_t>(y)};
      QuantizedOnDevice gated(plan, m);
      quantize(device_plan.view(), m, SwigluRows{bf16(gate), bf16(up)},
               gated.wanted(false, false, true), nullptr);
      wait();
      expect_swiglu_bound(x, y, gated.rows());

      RmsNormInput input = random_rmsnorm(random, m, k, true);
      QuantizedOnDevice normalised(plan, m);
      run_rmsnorm(plan, m, input, normalised.wanted(false, false, true));
      expect_rmsnorm_bound(input, m, k, normalised.rows());
    }
  }
}

// COPIES of PATTERN after each other in device memory.
void repeat(const Bits& pattern, int64_t total, uint16_t* to) {
  const auto size = static_cast<int64_t>(pattern.size());
  check(cudaMemcpy(to, pattern.data(), size * 2, cudaMemcpyHostToDevice), "copy");
  for (int64_t done = size; done < total;) {
    const int64_t count = std::min(done, total - done);
    check(cudaMemcpy(to + done, to, count * 2, cudaMemcpyDeviceToDevice), "copy");
    done += count;
  }
}

// More than 2^31 values, so that no index fits 32 bits.
TEST_F(SlowQuantize, ManyRows) {
  Random random(10);
  const InputPlan plan = random_plan(
      random, {{E2M1, E2M1, 10240}, {E2M3, E2M3, 4064}, {E4M3, E4M3, 32}}, mx::ScaleRule::kRceil);
  const int64_t m = 150'001, k = plan.k, period = 257;
  ASSERT_GT(m * k, int64_t{1} << 31);
  const DevicePlan device_plan(plan);
  const int64_t blocks = device_plan.view().blocks;
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "memory");
  if (static_cast<int64_t>(free) < m * (k * 2 + blocks * 65 + k) + (1 << 30)) {
    GTEST_SKIP() << "too little memory";
  }

  const Bits pattern = hostile_rows(random, plan, period);
  const DeviceArray<uint16_t> x(m * k);
  repeat(pattern, m * k, x.data());
  const DeviceArray<__nv_bfloat16> values(blocks * m * mx::kBlockSize);
  const DeviceArray<int8_t> shifts(blocks * m);
  const DeviceArray<uint8_t> special(m);
  check(cudaMemset(values.data(), 0xAB, values.bytes()), "poison");
  check(cudaMemset(shifts.data(), 0xAB, shifts.bytes()), "poison");
  const ExactRows exact{m, values.data(), shifts.data(), special.data()};
  CodeRowsMemory memory;
  const CodeRows& code_rows = memory.resize(device_plan.view(), m);
  QuantizedOutputs outputs;
  outputs.exact = &exact;
  outputs.codes = &code_rows;
  quantize(device_plan.view(), m, PlainRows{bf16(x)}, outputs, nullptr);
  wait();

  const std::vector<uint8_t> all_special = special.to_host();
  std::vector<int64_t> checked = {0, 1, m / 2, m - 2, m - 1};
  for (int i = 0; i < 60; ++i) checked.push_back(random() % m);
  for (const int64_t row : checked) {
    SCOPED_TRACE(::testing::Message() << "row " << row);
    const auto first = pattern.begin() + row % period * k;
    const QuantizedRows expected = quantize_rows(plan, 1, to_floats(Bits(first, first + k)).data());
    const testing::CodeBytes expected_codes = testing::code_bytes(expected);
    Bits found(blocks * mx::kBlockSize);
    check(cudaMemcpy2D(found.data(), 64, values.data() + row * mx::kBlockSize, m * 64, 64, blocks,
                       cudaMemcpyDeviceToHost),
          "copy");
    std::vector<int8_t> found_shifts(blocks);
    check(cudaMemcpy2D(found_shifts.data(), 1, shifts.data() + row, m, 1, blocks,
                       cudaMemcpyDeviceToHost),
          "copy");
    bool any_shift = false;
    int64_t channel = 0, first_block = 0;
    for (size_t s = 0; s < plan.segments.size(); ++s) {
      const auto& segment = plan.segments[s];
      for (int64_t local = 0; local < segment.channels / mx::kBlockSize; ++local) {
        const testing::ExactBlock block =
            testing::exact_block(expected, segment, 0, channel + local * mx::kBlockSize);
        const int64_t at = first_block + local;
        ASSERT_EQ(testing::difference(block, row, found.data() + at * mx::kBlockSize), "");
        ASSERT_EQ(int{found_shifts[at]}, block.shift);
        any_shift = any_shift || block.shift != 0;
      }
      // A row's chunks; alone, it is row 0, whose blocks are not exchanged.
      const int64_t chunks = testing::padded_blocks(segment.channels) / kBlocksPerChunk;
      const int64_t bytes = chunk_bytes(*segment.format), size = bytes / kBlocksPerChunk;
      std::vector<uint8_t> found_codes(chunks * bytes);
      check(cudaMemcpy2D(found_codes.data(), bytes, code_rows.segments[s].codes + row * bytes,
                         m * bytes, bytes, chunks, cudaMemcpyDeviceToHost),
            "copy");
      if (stored_block(bits_of(*segment.format), row, 0) != 0) {
        for (auto at = found_codes.begin(); at != found_codes.end(); at += bytes) {
          std::swap_ranges(at, at + size, at + size);
        }
      }
      ASSERT_TRUE(found_codes == expected_codes.codes[s]) << "segment " << s;
      channel += segment.channels;
      first_block += testing::padded_blocks(segment.channels);
    }
    ASSERT_EQ(int{all_special[row]}, int{any_shift});
  }
}

TEST(DevicePlan, RefusesMoreSegmentsThanKernelsTake) {
  InputPlan plan;
  for (int i = 0; i < 5; ++i) {
    plan.segments.push_back({E2M1, E2M1, 32});
    plan.k += 32;
  }
  EXPECT_EQ(testing::error_of([&] { DevicePlan{plan}; }),
            "CUDA: a plan of 5 segments, but kernels take at most 4");
}

TEST(DevicePlan, RefusesLongerRowsThanKernelsTake) {
  InputPlan plan;
  plan.k = 65537;
  EXPECT_EQ(testing::error_of([&] { DevicePlan{plan}; }),
            "CUDA: rows of 65537 channels, but kernels take at most 65536");
}

TEST(DevicePlan, PadsSegmentsToChunks) {
  InputPlan plan;
  plan.k = 192;
  plan.segments = {{E2M1, E2M1, 32}, {E2M3, std::nullopt, 96}, {E4M3, E4M3, 64}};
  const DevicePlan device_plan(plan);
  const PlanView& view = device_plan.view();
  EXPECT_EQ(view.blocks, 8);
  EXPECT_EQ(view.segment_count, 3);
  EXPECT_EQ(view.segments[1].first, 32);
  EXPECT_EQ(view.segments[1].first_block, 2);
  EXPECT_TRUE(view.segments[1].bf16);
  EXPECT_EQ(view.segments[2].first, 128);
  EXPECT_EQ(view.segments[2].first_block, 6);
  EXPECT_EQ(view.permutation, nullptr);
}

}  // namespace
}  // namespace micromix::kernels::cuda
