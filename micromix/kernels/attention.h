// What backends keep of attention: the keys and values of the positions seen so far.
#pragma once

#include <cassert>
#include <cstdint>

#include "micromix/kernels/buffer.h"

namespace micromix::kernels {

// Grouped queries (Ainslie et al. 2023): a key head serves HEADS / KV_HEADS query heads.
struct AttentionShape {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
};

// One layer's cache, in the form of the backend that made it.
class KeyValues {
 public:
  KeyValues(const AttentionShape& shape, int64_t capacity) : shape_(shape), capacity_(capacity) {}
  virtual ~KeyValues() = default;

  const AttentionShape& shape() const { return shape_; }
  // In positions.
  int64_t capacity() const { return capacity_; }
  int64_t length() const { return length_; }
  void clear() { length_ = 0; }

  // Appends the positions of KEYS and VALUES [m, kv_heads * head_dim], for which there must be
  // room.
  void append(const Buffer& keys, const Buffer& values) {
    assert(length_ + keys.rows() <= capacity_ && keys.rows() == values.rows());
    store(keys, values);
    length_ += keys.rows();
  }

 private:
  // Puts them behind the last.
  virtual void store(const Buffer& keys, const Buffer& values) = 0;

  AttentionShape shape_;
  int64_t capacity_;
  int64_t length_ = 0;
};

}  // namespace micromix::kernels
