// The angles of rotary position embedding (Su et al. 2021), with the frequency scalings `linear`
// and `llama3` (Llama 3.1).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "micromix/checkpoint/config.h"
#include "micromix/kernels/linear.h"

namespace micromix {

// The angles at consecutive positions, as Backend::place_heads takes them.
struct Rotations {
  explicit Rotations(const kernels::Backend& backend)
      : angles(backend.make_buffer(kernels::BufferType::kFloat)) {}

  int64_t first = 0;
  int64_t count = -1;                       // none yet
  std::vector<float> values;                // [count, head_dim]
  std::unique_ptr<kernels::Buffer> angles;  // the same
};

class Rope {
 public:
  Rope(const RopeConfig& config, int64_t head_dim);

  // Makes ROTATIONS those of COUNT positions from FIRST. They must have been made by a rope like
  // this: if they are for these positions already, they stay.
  void prepare(int64_t first, int64_t count, const kernels::Backend& backend,
               Rotations& rotations) const;

 private:
  int64_t head_dim_;
  std::vector<float> frequencies_;  // [head_dim / 2], radians a position
};

}  // namespace micromix
