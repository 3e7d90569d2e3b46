// Buffers of a pass through decoder layers, kept from one pass to the next, so that a further token
// allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "micromix/kernels/linear.h"
#include "micromix/model/rope.h"

namespace micromix {

// Uninitialized floats that grow to the largest number asked for.
class Buffer {
 public:
  float* resize(int64_t size) {
    if (size > size_) {
      values_ = std::make_unique_for_overwrite<float[]>(size);
      size_ = size;
    }
    return values_.get();
  }

 private:
  std::unique_ptr<float[]> values_;
  int64_t size_ = 0;
};

// For one model, and one thread at a time.
struct Workspace {
  explicit Workspace(const kernels::Backend& backend) : input(backend.make_input()) {}

  std::unique_ptr<kernels::Input> input;
  Rotations rotations;
  Buffer q, k, v, attended, gate, up, output;
};

}  // namespace micromix
