// A segment of a weight in device memory as a checkpoint stores it.
#pragma once

#include <cstdint>

#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"

namespace micromix::kernels::cuda {

struct StoredSegment {
  mx::Format format;
  int bits;
  int64_t channels;
  const uint8_t* codes;
  const uint8_t* scales;

  __device__ int64_t blocks() const { return channels / mx::kBlockSize; }

  __device__ uint32_t code(int64_t row, int64_t channel) const {
    const uint8_t* const of_row = codes + row * (channels * bits / 8);
    const int64_t bit = channel * bits;
    // The last code of three bytes ends with them, so two bytes never reach beyond.
    const uint32_t low = of_row[bit / 8];
    const uint32_t high = bit % 8 + bits > 8 ? of_row[bit / 8 + 1] : 0;
    return (high << 8 | low) >> bit % 8 & ((1u << bits) - 1);
  }
  __device__ uint8_t scale(int64_t row, int64_t block) const {
    return scales[row * blocks() + block];
  }
};

}  // namespace micromix::kernels::cuda
