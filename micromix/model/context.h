// What a model keeps of one sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "micromix/kernels/linear.h"
#include "micromix/model/workspace.h"

namespace micromix {

// Keys and values of the positions so far, and buffers. Made by Model::make_context, for that model
// and one thread at a time.
struct Context {
  int64_t length() const { return layers.front()->length(); }
  // Begins another sequence.
  void clear() {
    for (const auto& layer : layers) layer->clear();
  }

  std::vector<std::unique_ptr<kernels::KeyValues>> layers;
  Workspace workspace;
  std::unique_ptr<kernels::Buffer> hidden;  // last states of the tokens that ran last
  std::unique_ptr<kernels::Input> head_input;
  std::unique_ptr<kernels::Buffer> head_output;
  std::vector<float> embeddings, logits;  // on the host
};

}  // namespace micromix
