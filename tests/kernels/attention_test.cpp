// Attention on every backend against FP64, on random queries, keys and values.
#include <cmath>
#include <limits>

#include "tests/kernels/sequence.h"
#include "tests/kernels/subjects.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::Random;
using testing::Sequence;
using testing::Subject;

class EveryAttention : public testing::BackendTest {};

// A prompt at once, in chunks, and position by position.
TEST_P(EveryAttention, IsWithinTheBound) {
  Random random(1);
  const Subject& subject = GetParam();
  for (const auto& [shape, length] : testing::attention_cases()) {
    const Sequence sequence(random, shape, length);
    for (int64_t chunk : {512, 37, 1}) {
      const auto out = sequence.attend(*subject.backend, chunk);
      for (int64_t row = 0; row < length; row += row < 40 ? 1 : 13) {
        for (int64_t head = 0; head < shape.heads; ++head) {
          const testing::Exact exact = testing::exact_attention(sequence, row, head);
          const double error = subject.attention_error(shape, row + 1, exact.products);
          for (int64_t i = 0; i < shape.head_dim; ++i) {
            const float found = out[(row * shape.heads + head) * shape.head_dim + i];
            const double bound = error * exact.magnitude[i];
            ASSERT_LE(std::fabs(found - exact.out[i]),
                      bound + subject.output_rounding * (std::fabs(exact.out[i]) + bound))
                << "chunk " << chunk << " row " << row << " head " << head << " channel " << i;
          }
        }
      }
    }
  }
}

// One position's value is what every later row returns where all weight is on it.
TEST_P(EveryAttention, AllWeightOnOneKeyReturnsItsValue) {
  Random random(4);
  Sequence sequence(random, {2, 1, 32}, 290);
  for (float& value : sequence.q) value = 8;
  for (float& value : sequence.k) value = -8;
  std::fill_n(sequence.k.begin() + 3 * 32, 32, 8.0f);
  const auto out = sequence.attend(*GetParam().backend, 100);
  for (int64_t row = 3; row < 290; ++row) {
    for (int64_t i = 0; i < 64; ++i) {
      ASSERT_EQ(out[row * 64 + i], sequence.v[3 * 32 + i % 32]) << row;
    }
  }
}

// Of a query its row, of a key all rows from its position on. A value may also reach earlier rows,
// which multiply it by zero.
TEST_P(EveryAttention, NanReachesTheRowsThatSeeIt) {
  Random random(5);
  constexpr int64_t kPoisoned = 40;
  struct Case {
    std::vector<float> Sequence::*values;
    int64_t finite_before, first, last;  // rows
  };
  for (const auto& [values, finite_before, first, last] :
       {Case{&Sequence::q, 40, 40, 40}, Case{&Sequence::k, 40, 40, 63},
        Case{&Sequence::v, 0, 40, 63}}) {
    Sequence sequence(random, {1, 1, 32}, 64);
    (sequence.*values)[kPoisoned * 32] = std::numeric_limits<float>::quiet_NaN();
    const auto out = sequence.attend(*GetParam().backend, 64);
    for (int64_t row = 0; row < 64; ++row) {
      if (row >= first && row <= last) {
        EXPECT_TRUE(std::isnan(out[row * 32])) << row;
      } else if (row < finite_before || row > last) {
        EXPECT_TRUE(std::isfinite(out[row * 32])) << row;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, EveryAttention, ::testing::ValuesIn(testing::subjects()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace micromix::kernels
