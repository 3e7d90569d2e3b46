// How the segments of a weight lie in device memory, whatever its records are: a panel is some rows
// of it, its records, one a chunk of K, lie one after another.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/activations.h"

namespace micromix::kernels::cuda {

struct WeightSegments {
  struct Segment {
    mx::Format format;
    int16_t record_bytes;  // of the weight's kind of records
    int32_t first_chunk;   // of a segment that there is not: beyond all chunks
    int32_t chunks;
    int32_t channels;  // without padding
    int64_t offset;    // of its first record in a panel
  };
  int32_t chunks;
  int32_t segment_count;
  Segment segments[kMostSegments];
  int64_t panel_bytes;
};

}  // namespace micromix::kernels::cuda
