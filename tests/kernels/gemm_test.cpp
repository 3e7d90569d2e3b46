// The FP32 product: every instruction set's tile against a plain loop.
#include "micromix/kernels/reference/gemm.h"

#include <cmath>

#include "micromix/kernels/reference/gemm_tile.h"
#include "tests/kernels/random_linear.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

std::vector<float> random_floats(testing::Random& random, int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

TEST(Gemm, AwkwardShapesAreWithinTheBound) {
  testing::Random random(1);
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {1, 100, 33}, {7, 17, 512}, {13, 64, 513}, {300, 65, 1100}}) {
    const auto a = random_floats(random, m * k);
    const auto b = random_floats(random, n * k);
    std::vector<float> c(m * n), parallel(m * n);
    gemm(m, n, k, a.data(), k, FloatRows(b.data(), k), c.data(), n);
    parallel_gemm(m, n, k, a.data(), k, FloatRows(b.data(), k), parallel.data(), n);
    EXPECT_EQ(c, parallel);
    for (int64_t i = 0; i < m * n; ++i) {
      double exact = 0, magnitude = 0;
      for (int64_t p = 0; p < k; ++p) {
        const double product = static_cast<double>(a[i / n * k + p]) * b[i % n * k + p];
        exact += product;
        magnitude += std::fabs(product);
      }
      // A rounding each for the product (without FMA) and the addition.
      const double bound = static_cast<double>(gemm_additions(k) + 1) * 0x1p-24 * 1.01 * magnitude;
      ASSERT_LE(std::fabs(c[i] - exact), bound) << m << "x" << n << "x" << k;
    }
  }
}

TEST(Gemm, TilesOfAllInstructionSetsAgreeOnIntegers) {
  testing::Random random(2);
  std::vector<float> a(6 * 50), panel(50 * 16);
  for (float& value : a) value = static_cast<float>(static_cast<int>(random() % 21) - 10);
  for (float& value : panel) value = static_cast<float>(static_cast<int>(random() % 21) - 10);
  std::vector<GemmTile> tiles = {gemm_tile_portable};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    tiles.push_back(gemm_tile_avx2);
  if (__builtin_cpu_supports("avx512f")) tiles.push_back(gemm_tile_avx512);
#endif
  for (int64_t rows = 1; rows <= 6; ++rows) {
    for (GemmTile tile : tiles) {
      std::vector<float> c(6 * 16, 3.0f);
      tile(rows, 50, a.data(), 50, panel.data(), c.data(), 16, true);
      for (int64_t i = 0; i < 6 * 16; ++i) {
        float expected = 3.0f;
        for (int64_t p = 0; p < 50 && i / 16 < rows; ++p)
          expected += a[i / 16 * 50 + p] * panel[p * 16 + i % 16];
        ASSERT_EQ(c[i], expected);
      }
    }
  }
}

}  // namespace
}  // namespace micromix::kernels
