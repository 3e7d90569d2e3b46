// Random queries, keys and values, and exact attention over them.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "micromix/kernels/linear.h"
#include "micromix/mx/bfloat16.h"
#include "tests/kernels/random_linear.h"

namespace micromix::testing {

inline std::vector<float> bfloat16_values(Random& random, int64_t count, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> x(count);
  for (float& value : x) value = mx::round_to_bfloat16(normal(random));
  return x;
}

struct Sequence {
  Sequence(Random& random, const kernels::AttentionShape& of, int64_t positions)
      : shape(of),
        length(positions),
        q(bfloat16_values(random, length * shape.heads * shape.head_dim, 2)),
        k(bfloat16_values(random, length * shape.kv_heads * shape.head_dim, 2)),
        v(bfloat16_values(random, length * shape.kv_heads * shape.head_dim, 1)) {}

  // In chunks of CHUNK positions, as a prompt and its continuation.
  std::vector<float> attend(const kernels::Backend& backend, int64_t chunk) const {
    const int64_t width = shape.heads * shape.head_dim;
    const int64_t kv_width = shape.kv_heads * shape.head_dim;
    std::vector<float> result(length * width);
    const auto cache = backend.make_key_values(shape, length);
    const auto out = backend.make_buffer(kernels::BufferType::kOutput);
    for (int64_t row = 0; row < length; row += chunk) {
      const int64_t m = std::min(chunk, length - row);
      const auto rows = [&](const std::vector<float>& all, int64_t of_width) {
        return backend.buffer(kernels::BufferType::kOutput, m, of_width,
                              all.data() + row * of_width);
      };
      cache->append(*rows(k, kv_width), *rows(v, kv_width));
      backend.attend(*cache, *rows(q, width), *out);
      backend.read(*out, result.data() + row * width);
    }
    return result;
  }

  kernels::AttentionShape shape;
  int64_t length;
  std::vector<float> q, k, v;
};

struct Exact {
  std::vector<double> out;        // of one row and head
  std::vector<double> magnitude;  // sums of |p v|
  double products = 0;            // the largest sum of |q k| of a score
};

inline Exact exact_attention(const Sequence& all, int64_t row, int64_t head) {
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

inline const std::vector<std::pair<kernels::AttentionShape, int64_t>>& attention_cases() {
  static const std::vector<std::pair<kernels::AttentionShape, int64_t>> cases = {
      {{14, 2, 64}, 300}, {{4, 4, 16}, 33}, {{3, 1, 80}, 70}, {{8, 2, 128}, 20}, {{1, 1, 256}, 5}};
  return cases;
}

}  // namespace micromix::testing
