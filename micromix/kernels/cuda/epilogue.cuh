// From sums to outputs, and sums of blocks that share an output tile.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/oracle.cuh"
#include "micromix/kernels/cuda/packed_layout.h"

namespace micromix::kernels::cuda {

// What makes outputs of a row of the weight from sums: two FP32 operations.
struct RowEnd {
  float factor, bias;

  RowEnd() = default;
  __device__ RowEnd(const WeightView& weight, int64_t row)
      : factor(weight.factors[row]), bias(weight.bias == nullptr ? 0.0f : weight.bias[row]) {}
  __device__ __nv_bfloat16 finish(float sum) const {
    return __float2bfloat16_rn(fmaf(sum, factor, bias));
  }
  // Whether no sum can give this row's outputs, which then come from oracle_output().
  __device__ bool needs_oracle() const { return factor == 0; }
};

// K split over blocks. Each part leaves its sums in memory, and one block adds all; or a cluster's
// blocks leave them in shared memory and add some each. In the order of parts, so that results do
// not depend on who comes first.
struct SplitK {
  int32_t parts;
  int32_t chunks;      // of every part, and
  int32_t extra;       // one more of the first parts
  float* partials;     // [tiles][parts][sums of a tile]; null: one part, or a cluster's
  uint32_t* counters;  // [tiles], parts that are there; zero between launches
};

// Part INDEX's chunks.
struct PartOfK {
  int begin, end;

  __device__ PartOfK(const SplitK& split, int index)
      : begin(index * split.chunks + min(index, split.extra)),
        end(begin + split.chunks + (index < split.extra ? 1 : 0)) {}
};

// Called by all threads of a block once they wrote their part's sums. True in the block whose part
// comes last, which then may read all parts. The barrier and the release by one
// thread order all threads' writes.
__device__ inline bool is_last_part(const SplitK& split, int64_t tile) {
  __syncthreads();
  int last = 0;
  if (threadIdx.x == 0) {
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(split.counters + tile), "r"(split.parts - 1)
                 : "memory");
    last = before == static_cast<uint32_t>(split.parts - 1) ? 1 : 0;  // and it is zero again
  }
  return __syncthreads_or(last) != 0;
}

// Says, by one thread after a barrier of those that wrote them, that a part's sums are there: one
// more at COUNTERS[INDEX].
__device__ inline void announce_part(uint32_t* counters, int64_t index) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counters + index) : "memory");
}

// Waits, before a barrier of those that will read them, for the sums of so many PARTS. The counter
// is to be set to zero then.
__device__ inline void await_parts(uint32_t* counters, int64_t index, int parts) {
  uint32_t there;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                 : "=r"(there)
                 : "l"(counters + index)
                 : "memory");
  } while (there != static_cast<uint32_t>(parts));
}

}  // namespace micromix::kernels::cuda
