// Rotary position embedding (Su et al. 2021), in the half-split form of Hugging Face's Llama, with
// the frequency scalings `linear` and `llama3` (Llama 3.1).
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/checkpoint/config.h"

namespace micromix {

class Rope {
 public:
  Rope(const RopeConfig& config, int64_t head_dim);

  // Rotates HEADS consecutive vectors of head_dim at this position, in place.
  void rotate(int64_t position, int64_t heads, float* x) const;

 private:
  int64_t head_dim_;
  std::vector<float> frequencies_;  // [head_dim / 2], radians a position
};

}  // namespace micromix
