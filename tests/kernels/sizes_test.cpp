// Operands whose offsets leave 32 bits, on the CPU backend. They repeat in memory, and by periods
// that no power of two is a multiple of, so an offset that lost its upper bits finds other values.
#include <array>
#include <cmath>
#include <memory>
#include <set>

#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/host.h"
#include "micromix/kernels/reference/oracle.h"
#include "tests/kernels/random_linear.h"
#include "tests/kernels/repeated_bytes.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::Random;
using testing::random_plan;
using testing::random_rows;
using testing::random_weight;
using testing::RepeatedBytes;
using testing::SegmentShape;

constexpr int64_t kTwoTo31 = int64_t{1} << 31;

// The bound grows with K and sqrt(K) times the result: this one still tells most wrong rows apart.
constexpr int64_t kChannels = 16384;

// Those of COUNT lines of STRIDE units each that lie about 2^31 and 2^32 units from the first.
void add_far(std::set<int64_t>& lines, int64_t stride, int64_t count) {
  for (int64_t offset : {kTwoTo31, 2 * kTwoTo31}) {
    for (int64_t line = offset / stride - 1; line <= offset / stride + 1; ++line) {
      if (line < count) lines.insert(line);
    }
  }
}

void expect_within_bound(const MixedWeight& weight, const QuantizedRows& rows, int64_t row,
                         int64_t column, float y) {
  const OracleValue exact = oracle_output(weight, rows, row, column);
  EXPECT_LE(std::fabs(y - exact.value), error_bound(exact, cpu_additions(weight.k)))
      << "row " << row << " column " << column;
}

TEST(SlowCpuSizes, WeightBeyond32Bits) {
  Random random(1);
  // 5.9 bits an element: packed, too, the weight is larger than 2^31 bytes, and so are the codes of
  // its first segment alone.
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M3, mx::Format::kE2M3, 11264},
                                            {mx::Format::kE2M1, mx::Format::kE2M1, 4096},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 1024}};
  constexpr int64_t kPeriod = int64_t{128} * 37;  // whole pages of every segment's codes and scales
  const auto period = random_weight(random, kPeriod, shapes, 124, 130, false);
  MixedWeight weight = period.weight;
  weight.n = 2 * kTwoTo31 / kChannels + 33;
  ASSERT_EQ(weight.k, kChannels);
  std::set<int64_t> columns = {0, 1, weight.n - 2, weight.n - 1};
  add_far(columns, weight.k, weight.n);
  std::vector<std::unique_ptr<RepeatedBytes>> repeated;
  const auto repeat = [&](std::span<const uint8_t> bytes) {
    const auto stride = static_cast<int64_t>(bytes.size()) / kPeriod;
    add_far(columns, stride, weight.n);
    repeated.push_back(std::make_unique<RepeatedBytes>(std::as_bytes(bytes), weight.n * stride));
    return repeated.back()->octets();
  };
  int64_t packed = 0;
  for (WeightSegment& segment : weight.segments) {
    segment.codes = repeat(segment.codes);
    segment.scales = repeat(segment.scales);
    packed += static_cast<int64_t>(segment.codes.size());
  }
  ASSERT_GT(packed, kTwoTo31);
  ASSERT_GT(std::ssize(weight.segments[0].codes), kTwoTo31);
  add_far(columns, packed / weight.n, weight.n);

  constexpr int64_t kM = 2;
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  const std::vector<float> x = random_rows(random, kM * plan.k);
  const Backend& backend = cpu_backend();
  std::vector<float> y(kM * weight.n);
  backend.multiply(*backend.prepare(weight, plan), *backend.input(plan, kM, x.data()), y.data());

  const QuantizedRows rows = quantize_rows(plan, kM, x.data());
  for (int64_t row = 0; row < kM; ++row) {
    const float* const of_row = y.data() + row * weight.n;
    for (int64_t column : columns) expect_within_bound(weight, rows, row, column, of_row[column]);
    for (int64_t column = kPeriod; column < weight.n; ++column) {
      ASSERT_EQ(of_row[column], of_row[column % kPeriod]) << "row " << row << " column " << column;
    }
  }
}

TEST(SlowCpuSizes, RowsBeyond32Bits) {
  Random random(2);
  // Mostly integer: 3.2 GB of tiles, where wide ones would take 4.6.
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 10240},
                                            {mx::Format::kE2M3, mx::Format::kE2M3, 4096},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 2048}};
  constexpr int64_t kN = 33, kPeriod = 37;
  const int64_t m = kTwoTo31 / kChannels + 41;
  const auto weight = random_weight(random, kN, shapes, 124, 130, true);
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  ASSERT_EQ(plan.k, kChannels);
  const int64_t row_bytes = plan.k * static_cast<int64_t>(sizeof(float));
  const std::vector<float> period = random_rows(random, kPeriod * plan.k);
  const RepeatedBytes x(std::as_bytes(std::span(period)), m * row_bytes);
  const Backend& backend = cpu_backend();
  std::vector<float> y(m * kN);
  auto* const values = const_cast<float*>(reinterpret_cast<const float*>(x.bytes().data()));
  const auto prepared = backend.prepare(plan);
  const auto input = backend.make_input();
  backend.set(*input, *prepared, HostBuffer(values, m, plan.k));
  backend.multiply(*backend.prepare(weight.weight, plan), *input, y.data());

  std::set<int64_t> sample = {0, 1, m - 2, m - 1};
  int64_t tile_bytes = 0;
  for (const InputPlan::Segment& segment : plan.segments) {
    tile_bytes += segment.channels / mx::kBlockSize *
                  cpu::tile_block_bytes(cpu::is_integer(segment.weight, segment.format),
                                        cpu::chosen_kernels().wide_bytes, 1);
  }
  for (int64_t stride : {plan.k, row_bytes, tile_bytes}) add_far(sample, stride, m);
  const QuantizedRows rows = quantize_rows(plan, kPeriod, period.data());
  for (int64_t row : sample) {
    for (int64_t column = 0; column < kN; ++column) {
      expect_within_bound(weight.weight, rows, row % kPeriod, column, y[row * kN + column]);
    }
  }
  for (int64_t i = kPeriod * kN; i < m * kN; ++i) {
    ASSERT_EQ(y[i], y[i % (kPeriod * kN)]) << "row " << i / kN << " column " << i % kN;
  }
}

}  // namespace
}  // namespace micromix::kernels
