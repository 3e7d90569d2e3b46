// What the CPU's products promise beyond every backend's.
#include <fmt/format.h>

#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/mx/bfloat16.h"
#include "tests/kernels/random_linear.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::Random;
using testing::random_plan;
using testing::random_rows;
using testing::random_weight;
using testing::SegmentShape;

// The first M of rows X times LINEAR.
std::vector<float> outputs(const Backend& backend, const Linear& linear, const InputPlan& plan,
                           int64_t m, const std::vector<float>& x) {
  std::vector<float> y(m * linear.n());
  backend.multiply(linear, *backend.input(plan, m, x.data()), y.data());
  return y;
}

// How many blocks are expanded together depends on the number of rows and the caches, no output's
// bits do. Few rows of a mixed linear have an order of additions of their own.
TEST(CpuProduct, RowsBesideARowDoNotChangeABit) {
  Random random(31);
  constexpr int64_t kRows = 60, kColumns = 40;
  const std::vector<SegmentShape> shapes = {{mx::Format::kE2M1, mx::Format::kE2M1, 1184},
                                            {mx::Format::kE4M3, mx::Format::kE4M3, 608}};
  const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
  const auto mixed = random_weight(random, kColumns, shapes, 120, 134, true);
  const InputPlan dense_plan{1100, {}, {}, mx::ScaleRule::kRceil, false};
  std::vector<mx::BFloat16> w;
  for (float value : random_rows(random, kColumns * dense_plan.k)) {
    w.push_back(mx::to_bfloat16(value));
  }
  const DenseWeight dense{
      kColumns, dense_plan.k, DenseType::kBF16, std::as_bytes(std::span(w)), {}};
  const std::vector<float> x = random_rows(random, kRows * plan.k);
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    const auto backend = make_cpu_backend(*kernels);
    const auto expect_prefix = [&](const Linear& linear, const InputPlan& of_input, int64_t m) {
      std::vector<float> all = outputs(*backend, linear, of_input, kRows, x);
      all.resize(m * kColumns);
      EXPECT_EQ(outputs(*backend, linear, of_input, m, x), all) << kernels->name << ", " << m;
    };
    for (int64_t m : {7, 13, 17}) expect_prefix(*backend->prepare(mixed.weight, plan), plan, m);
    for (int64_t m : {5, 13}) expect_prefix(*backend->prepare(dense), dense_plan, m);
  }
}

// The first tile of many takes integer blocks from packed bytes, the others what it leaves
// expanded; all take those that are expanded before where some row is tiny, whose tile plain C++
// multiplies. A last tile has any number of rows.
TEST(CpuProduct, TilesAreAlike) {
  Random random(32);
  constexpr int64_t kMostRows = 3 * cpu::kTileRows, kColumns = 70, kTiny = 10;
  for (mx::Format format : {mx::Format::kE2M1, mx::Format::kE2M3, mx::Format::kE4M3}) {
    const std::vector<SegmentShape> shapes = {{format, format, 1184}};
    const auto plan = random_plan(random, shapes, mx::ScaleRule::kRceil);
    const auto weight = random_weight(random, kColumns, shapes, 120, 134, false);
    std::vector<float> x = random_rows(random, kMostRows * plan.k);
    for (int64_t row = 1; row < kMostRows; ++row) std::copy_n(x.data(), plan.k, &x[row * plan.k]);
    std::vector<float> with_tiny = x;
    for (int64_t i = 0; i < plan.k; ++i) with_tiny[kTiny * plan.k + i] *= 0x1p-80f;
    for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
      const auto backend = make_cpu_backend(*kernels);
      const auto linear = backend->prepare(weight.weight, plan);
      for (int64_t rows = kMostRows - cpu::kTileRows + 1; rows <= kMostRows; ++rows) {
        SCOPED_TRACE(fmt::format("{}, {}, {} rows", kernels->name, mx::name(format), rows));
        const std::vector<float> y = outputs(*backend, *linear, plan, rows, x);
        const std::vector<float> tiny = outputs(*backend, *linear, plan, rows, with_tiny);
        for (int64_t i = 0; i < rows * kColumns; ++i) {
          const int64_t row = i / kColumns;
          ASSERT_EQ(y[i], y[i % kColumns]) << i;
          // Plain C++ adds wide products in another order.
          if (format == mx::Format::kE4M3 && row / cpu::kTileRows == kTiny / cpu::kTileRows) {
            continue;
          }
          ASSERT_EQ(row == kTiny ? tiny[i] * 0x1p80f : tiny[i], y[i]) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace micromix::kernels
