// Keys and values of the positions seen so far.
#pragma once

#include <cassert>
#include <cstdint>
#include <vector>

#include "micromix/checkpoint/config.h"

namespace micromix {

// One layer's cache for up to CAPACITY positions. Values lie transposed, so that both products of
// attention run over rows.
class KvLayer {
 public:
  KvLayer(const ModelConfig& config, int64_t capacity)
      : heads_(config.num_kv_heads),
        head_dim_(config.head_dim),
        capacity_(capacity),
        keys_(heads_ * head_dim_ * capacity),
        values_(heads_ * head_dim_ * capacity) {}

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  void clear() { length_ = 0; }

  // Appends M positions: KEYS and VALUES [m, kv_heads * head_dim].
  void append(int64_t m, const float* keys, const float* values) {
    assert(length_ + m <= capacity_);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t head = 0; head < heads_; ++head) {
        for (int64_t i = 0; i < head_dim_; ++i) {
          const int64_t from = (row * heads_ + head) * head_dim_ + i;
          keys_[(head * capacity_ + length_ + row) * head_dim_ + i] = keys[from];
          values_[(head * head_dim_ + i) * capacity_ + length_ + row] = values[from];
        }
      }
    }
    length_ += m;
  }

  // [length, head_dim], row-major.
  const float* keys(int64_t head) const { return keys_.data() + head * capacity_ * head_dim_; }
  // [head_dim, length], rows CAPACITY apart.
  const float* values(int64_t head) const { return values_.data() + head * head_dim_ * capacity_; }

 private:
  int64_t heads_;
  int64_t head_dim_;
  int64_t capacity_;
  int64_t length_ = 0;
  std::vector<float> keys_;
  std::vector<float> values_;
};

// All layers of a model.
struct KvCache {
  KvCache(const ModelConfig& config, int64_t capacity)
      : layers(config.num_layers, KvLayer(config, capacity)) {}

  int64_t length() const { return layers.front().length(); }
  void clear() {
    for (KvLayer& layer : layers) layer.clear();
  }

  std::vector<KvLayer> layers;
};

}  // namespace micromix
