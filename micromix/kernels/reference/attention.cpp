#include "micromix/kernels/reference/attention.h"

#include <algorithm>
#include <cmath>

#include "micromix/kernels/host.h"
#include "micromix/kernels/reference/gemm.h"

namespace micromix::kernels {
namespace {

// Query rows taken at a time: their scores stay in the cache, and keys past them are not computed.
constexpr int64_t kQueryRows = 64;

// Softmax of the first VISIBLE scores times SCALE, in place; the others of COUNT become zero.
void softmax(float* scores, int64_t visible, int64_t count, float scale) {
  const float largest = *std::max_element(scores, scores + visible);
  double sum = 0;
  for (int64_t i = 0; i < visible; ++i) {
    scores[i] = std::exp((scores[i] - largest) * scale);
    sum += scores[i];
  }
  const float factor = static_cast<float>(1.0 / sum);
  for (int64_t i = 0; i < visible; ++i) scores[i] *= factor;
  std::fill(scores + visible, scores + count, 0.0f);
}

}  // namespace

FloatKeyValues::FloatKeyValues(const AttentionShape& shape, int64_t capacity)
    : KeyValues(shape, capacity),
      keys_(shape.kv_heads * shape.head_dim * capacity),
      values_(shape.kv_heads * shape.head_dim * capacity) {}

void FloatKeyValues::store(const Buffer& key_rows, const Buffer& value_rows) {
  const float* const keys = kernels::values(key_rows);
  const float* const values = kernels::values(value_rows);
  const auto [_, heads, head_dim] = shape();
  for (int64_t row = 0; row < key_rows.rows(); ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = 0; i < head_dim; ++i) {
        const int64_t from = (row * heads + head) * head_dim + i;
        keys_[(head * capacity() + length() + row) * head_dim + i] = keys[from];
        values_[(head * head_dim + i) * capacity() + length() + row] = values[from];
      }
    }
  }
}

void attend_float(const FloatKeyValues& cache, int64_t m, const float* q, float* out) {
  const AttentionShape& shape = cache.shape();
  const int64_t head_dim = shape.head_dim;
  const int64_t width = shape.heads * head_dim;
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t past = cache.length() - m;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t head = 0; head < shape.heads; ++head) {
    for (int64_t begin = 0; begin < m; begin += kQueryRows) {
      thread_local std::vector<float> scores;
      const int64_t rows = std::min(kQueryRows, m - begin);
      const int64_t keys = past + begin + rows;
      const int64_t at = begin * width + head * head_dim;
      scores.resize(rows * keys);
      gemm(rows, keys, head_dim, q + at, width, FloatRows(cache.keys(head / group), head_dim),
           scores.data(), keys);
      for (int64_t row = 0; row < rows; ++row) {
        softmax(scores.data() + row * keys, past + begin + row + 1, keys, scale);
      }
      gemm(rows, head_dim, keys, scores.data(), keys,
           FloatRows(cache.values(head / group), cache.capacity()), out + at, width);
    }
  }
}

}  // namespace micromix::kernels
