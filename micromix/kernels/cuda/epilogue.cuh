// From sums to outputs, and sums of blocks that share an output tile.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/oracle.cuh"
#include "micromix/kernels/cuda/packed_layout.h"

namespace micromix::kernels::cuda {

// Output [X_ROW, ROW]: two FP32 operations after the sum, or the oracle where the sum cannot be it.
__device__ inline __nv_bfloat16 finish(float sum, const WeightView& weight, const ExactRows& x,
                                       int64_t x_row, bool x_special, int64_t row) {
  const float factor = weight.factors[row];
  if (factor == 0 || x_special) return oracle_output(weight, x, x_row, row);
  const float bias = weight.bias == nullptr ? 0.0f : weight.bias[row];
  return __float2bfloat16_rn(fmaf(sum, factor, bias));
}

// K split over blocks: each part of a tile leaves its sums in memory, and the one that comes last
// adds all, in the order of parts, so that results do not depend on who it is.
struct SplitK {
  int32_t parts;
  float* partials;     // [tiles][parts][sums of a tile]
  uint32_t* counters;  // [tiles]; zero between launches
};

// Called by all threads of a block, after they wrote their sums. True in the block that comes last,
// which then may read all parts. The barrier and the release by one thread order all threads'
// writes.
__device__ inline bool is_last_part(const SplitK& split, int64_t tile) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(split.counters + tile), "r"(split.parts - 1)
                 : "memory");
    last = before == static_cast<uint32_t>(split.parts - 1);  // and it is zero again
  }
  __syncthreads();
  return last;
}

}  // namespace micromix::kernels::cuda
