// What the CPU's attention promises beyond every backend's.
#include <cmath>
#include <limits>

#include <omp.h>

#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "tests/kernels/sequence.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::Random;
using testing::Sequence;

// Keys come in fixed blocks, so a row's bits depend on nothing beside it.
TEST(CpuAttention, ChunksAndThreadsDoNotChangeABit) {
  Random random(3);
  const Sequence sequence(random, {6, 2, 64}, 300);
  const int threads = omp_get_max_threads();
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    const auto backend = make_cpu_backend(*kernels);
    const auto whole = sequence.attend(*backend, 300);
    EXPECT_EQ(sequence.attend(*backend, 1), whole) << kernels->name;
    EXPECT_EQ(sequence.attend(*backend, 37), whole) << kernels->name;
    omp_set_num_threads(3);
    EXPECT_EQ(sequence.attend(*backend, 300), whole) << kernels->name;
    omp_set_num_threads(threads);
  }
}

// A value reaches no earlier rows but those of a tile that sees its block of 32 positions: from row
// 30 on, where row 35 sees position 32.
TEST(CpuAttention, NanValueStaysInItsBlock) {
  Random random(5);
  Sequence sequence(random, {1, 1, 32}, 64);
  sequence.v[40 * 32] = std::numeric_limits<float>::quiet_NaN();
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    const auto out = sequence.attend(*make_cpu_backend(*kernels), 64);
    for (int64_t row = 0; row < 30; ++row) EXPECT_TRUE(std::isfinite(out[row * 32])) << row;
  }
}

}  // namespace
}  // namespace micromix::kernels
