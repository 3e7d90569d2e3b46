#include "micromix/model/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "micromix/kernels/reference/gemm.h"

namespace micromix {
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

void attend(const ModelConfig& config, int64_t m, const float* q, const KvLayer& cache,
            float* out) {
  const int64_t head_dim = config.head_dim;
  const int64_t width = config.num_heads * head_dim;
  const int64_t group = config.num_heads / config.num_kv_heads;
  const int64_t past = cache.length() - m;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t head = 0; head < config.num_heads; ++head) {
    for (int64_t begin = 0; begin < m; begin += kQueryRows) {
      thread_local std::vector<float> scores;
      const int64_t rows = std::min(kQueryRows, m - begin);
      const int64_t keys = past + begin + rows;
      const int64_t at = begin * width + head * head_dim;
      scores.resize(rows * keys);
      kernels::gemm(rows, keys, head_dim, q + at, width,
                    kernels::FloatRows(cache.keys(head / group), head_dim), scores.data(), keys);
      for (int64_t row = 0; row < rows; ++row) {
        softmax(scores.data() + row * keys, past + begin + row + 1, keys, scale);
      }
      kernels::gemm(rows, head_dim, keys, scores.data(), keys,
                    kernels::FloatRows(cache.values(head / group), cache.capacity()), out + at,
                    width);
    }
  }
}

}  // namespace micromix
