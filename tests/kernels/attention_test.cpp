// Attention on every backend against FP64, on random queries, keys and values.
#include "micromix/kernels/cpu/attention.h"

#include <cmath>
#include <limits>
#include <random>

#include <omp.h>

#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/reference/gemm.h"
#include "micromix/mx/bfloat16.h"
#include "tests/kernels/random_linear.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::Random;

std::vector<float> bfloat16_values(Random& random, int64_t count, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> x(count);
  for (float& value : x) value = mx::round_to_bfloat16(normal(random));
  return x;
}

struct Sequence {
  Sequence(Random& random, const AttentionShape& of, int64_t positions)
      : shape(of),
        length(positions),
        q(bfloat16_values(random, length * shape.heads * shape.head_dim, 2)),
        k(bfloat16_values(random, length * shape.kv_heads * shape.head_dim, 2)),
        v(bfloat16_values(random, length * shape.kv_heads * shape.head_dim, 1)) {}

  // In chunks of CHUNK positions, as a prompt and its continuation.
  std::vector<float> attend(const Backend& backend, int64_t chunk) const {
    const int64_t width = shape.heads * shape.head_dim;
    const int64_t kv_width = shape.kv_heads * shape.head_dim;
    std::vector<float> result(length * width);
    const auto cache = backend.make_key_values(shape, length);
    const auto out = backend.make_buffer(BufferType::kOutput);
    for (int64_t row = 0; row < length; row += chunk) {
      const int64_t m = std::min(chunk, length - row);
      const auto rows = [&](const std::vector<float>& all, int64_t of_width) {
        return backend.buffer(BufferType::kOutput, m, of_width, all.data() + row * of_width);
      };
      cache->append(*rows(k, kv_width), *rows(v, kv_width));
      backend.attend(*cache, *rows(q, width), *out);
      backend.read(*out, result.data() + row * width);
    }
    return result;
  }

  AttentionShape shape;
  int64_t length;
  std::vector<float> q, k, v;
};

struct Exact {
  std::vector<double> out;        // of one row and head
  std::vector<double> magnitude;  // sums of |p v|
  double products = 0;            // the largest sum of |q k| of a score
};

Exact exact_attention(const Sequence& all, int64_t row, int64_t head) {
  const auto [heads, kv_heads, head_dim] = all.shape;
  const int64_t kv_head = head / (heads / kv_heads);
  const float* const q = all.q.data() + (row * heads + head) * head_dim;
  Exact exact{std::vector<double>(head_dim), std::vector<double>(head_dim)};
  std::vector<double> scores(row + 1);
  for (int64_t j = 0; j <= row; ++j) {
    const float* const k = all.k.data() + (j * kv_heads + kv_head) * head_dim;
    double products = 0;
    for (int64_t i = 0; i < head_dim; ++i) {
      scores[j] += static_cast<double>(q[i]) * k[i];
      products += std::fabs(static_cast<double>(q[i]) * k[i]);
    }
    scores[j] /= std::sqrt(static_cast<double>(head_dim));
    exact.products = std::max(exact.products, products);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  for (int64_t j = 0; j <= row; ++j) {
    const float* const v = all.v.data() + (j * kv_heads + kv_head) * head_dim;
    for (int64_t i = 0; i < head_dim; ++i) {
      exact.out[i] += scores[j] / total * v[i];
      exact.magnitude[i] += scores[j] / total * std::fabs(static_cast<double>(v[i]));
    }
  }
  return exact;
}

const std::vector<std::pair<AttentionShape, int64_t>>& cases() {
  static const std::vector<std::pair<AttentionShape, int64_t>> cases = {
      {{14, 2, 64}, 300}, {{4, 4, 16}, 33}, {{3, 1, 80}, 70}, {{8, 2, 128}, 20}, {{1, 1, 256}, 5}};
  return cases;
}

TEST(CpuAttention, IsWithinTheBound) {
  Random random(1);
  for (const auto& [shape, length] : cases()) {
    const Sequence sequence(random, shape, length);
    for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
      const auto out = sequence.attend(*make_cpu_backend(*kernels), 512);
      for (int64_t row = 0; row < length; row += row < 40 ? 1 : 13) {
        for (int64_t head = 0; head < shape.heads; ++head) {
          const Exact exact = exact_attention(sequence, row, head);
          const double error = cpu::attention_error(shape, row + 1, exact.products);
          for (int64_t i = 0; i < shape.head_dim; ++i) {
            const float found = out[(row * shape.heads + head) * shape.head_dim + i];
            ASSERT_LE(std::fabs(found - exact.out[i]), error * exact.magnitude[i])
                << kernels->name << " row " << row << " head " << head << " channel " << i;
          }
        }
      }
    }
  }
}

TEST(ReferenceAttention, IsFloatAttention) {
  Random random(2);
  for (const auto& [shape, length] : cases()) {
    const Sequence sequence(random, shape, length);
    const auto out = sequence.attend(reference_backend(), 512);
    for (int64_t row = 0; row < length; row += row < 40 ? 1 : 13) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const Exact exact = exact_attention(sequence, row, head);
        // A weight is off by its score's chain of additions, three roundings and exp, twice.
        const double score = exact.products / std::sqrt(static_cast<double>(shape.head_dim)) *
                             static_cast<double>(gemm_additions(shape.head_dim) + 3) * 0x1p-24;
        const double error =
            2.1 * (score + 4 * 0x1p-23) + static_cast<double>(gemm_additions(row + 1)) * 0x1p-23;
        for (int64_t i = 0; i < shape.head_dim; ++i) {
          const float found = out[(row * shape.heads + head) * shape.head_dim + i];
          ASSERT_LE(std::fabs(found - exact.out[i]), error * exact.magnitude[i]);
        }
      }
    }
  }
}

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

// One position's value is what every later row returns where all weight is on it.
TEST(CpuAttention, AllWeightOnOneKeyReturnsItsValue) {
  Random random(4);
  Sequence sequence(random, {2, 1, 32}, 290);
  for (float& value : sequence.q) value = 8;
  for (float& value : sequence.k) value = -8;
  std::fill_n(sequence.k.begin() + 3 * 32, 32, 8.0f);
  for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
    const auto out = sequence.attend(*make_cpu_backend(*kernels), 100);
    for (int64_t row = 3; row < 290; ++row) {
      for (int64_t i = 0; i < 64; ++i) {
        ASSERT_EQ(out[row * 64 + i], sequence.v[3 * 32 + i % 32]) << row;
      }
    }
  }
}

// Of a query its row, of a key all rows from its position on. A value also reaches those of a tile
// that sees its block of 32 positions: from row 30 on, where row 35 sees position 32.
TEST(CpuAttention, NanReachesTheRowsThatSeeIt) {
  Random random(5);
  constexpr int64_t kPoisoned = 40;
  struct Case {
    std::vector<float> Sequence::*values;
    int64_t finite_before, first, last;  // rows
  };
  for (const auto& [values, finite_before, first, last] :
       {Case{&Sequence::q, 40, 40, 40}, Case{&Sequence::k, 40, 40, 63},
        Case{&Sequence::v, 30, 40, 63}}) {
    Sequence sequence(random, {1, 1, 32}, 64);
    (sequence.*values)[kPoisoned * 32] = std::numeric_limits<float>::quiet_NaN();
    for (const cpu::Kernels* kernels : cpu::supported_kernels()) {
      const auto out = sequence.attend(*make_cpu_backend(*kernels), 64);
      for (int64_t row = 0; row < 64; ++row) {
        if (row >= first && row <= last) {
          EXPECT_TRUE(std::isnan(out[row * 32])) << row;
        } else if (row < finite_before || row > last) {
          EXPECT_TRUE(std::isfinite(out[row * 32])) << row;
        }
      }
    }
  }
}

}  // namespace
}  // namespace micromix::kernels
