// Buffers of a pass through decoder layers, kept from one pass to the next, so that a further token
// allocates nothing.
#pragma once

#include <memory>

#include "micromix/kernels/linear.h"
#include "micromix/model/rope.h"

namespace micromix {

// For one model, and one thread at a time.
struct Workspace {
  explicit Workspace(const kernels::Backend& backend)
      : input(backend.make_input()), rotations(backend) {
    for (auto* buffer : {&q, &k, &v, &attended, &gate, &up, &output}) {
      *buffer = backend.make_buffer(kernels::BufferType::kOutput);
    }
  }

  std::unique_ptr<kernels::Input> input;
  Rotations rotations;
  std::unique_ptr<kernels::Buffer> q, k, v, attended, gate, up, output;
};

}  // namespace micromix
