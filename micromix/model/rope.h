// Rotary position embedding (Su et al. 2021), in the half-split form of Hugging Face's Llama, with
// the frequency scalings `linear` and `llama3` (Llama 3.1).
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/checkpoint/config.h"

namespace micromix {

// Cosines and sines of the angles at consecutive positions, [count, head_dim / 2].
struct Rotations {
  int64_t first = 0;
  int64_t count = 0;
  std::vector<float> cosines, sines;
};

class Rope {
 public:
  Rope(const RopeConfig& config, int64_t head_dim);

  // Makes ROTATIONS those of COUNT positions from FIRST. They must have been made by a rope like
  // this: if they are for these positions already, they stay.
  void prepare(int64_t first, int64_t count, Rotations& rotations) const;

  // Rotates HEADS consecutive vectors of head_dim at the ROW-th position of ROTATIONS, in place.
  void rotate(const Rotations& rotations, int64_t row, int64_t heads, float* x) const;

 private:
  int64_t head_dim_;
  std::vector<float> frequencies_;  // [head_dim / 2], radians a position
};

}  // namespace micromix
