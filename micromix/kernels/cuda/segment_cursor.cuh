// The segments of chunks.
#pragma once

#include "micromix/kernels/cuda/weight_segments.h"

namespace micromix::kernels::cuda {

// The segment of chunk CHUNK.
__device__ inline const WeightSegments::Segment& segment_of(const WeightSegments& weight,
                                                            int chunk) {
  int index = 0;
#pragma unroll
  for (int next = 1; next < kMostSegments; ++next) {
    index += chunk >= weight.segments[next].first_chunk ? 1 : 0;
  }
  return weight.segments[index];
}

// Goes through chunks, knowing the segment of each.
struct SegmentCursor {
  int segment = 0;
  int end;  // of its chunks
  mx::Format format;

  __device__ SegmentCursor(const WeightSegments& weight, int chunk) {
    enter(weight);
    move_to(weight, chunk);
  }
  __device__ void move_to(const WeightSegments& weight, int chunk) {
    while (chunk >= end) {
      ++segment;
      enter(weight);
    }
  }

 private:
  __device__ void enter(const WeightSegments& weight) {
    format = weight.segments[segment].format;
    end = weight.segments[segment].first_chunk + weight.segments[segment].chunks;
  }
};

}  // namespace micromix::kernels::cuda
