// Copies of whole pieces of memory to shared memory, each by a thread, and the barriers in shared
// memory that count their bytes (cp.async.bulk and mbarrier, sm_90).
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/shared_barrier.cuh"

namespace micromix::kernels::cuda {

// Makes barriers that this thread made known to bulk copies. Before a barrier of all that use them.
__device__ inline void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// True in one lane of the warp, all of which call it. What all lanes compute and one uses stays in
// uniform registers, which bulk copies take; a branch for one lane would not.
__device__ inline bool elect_lane() {
  uint32_t elected;
  asm volatile(
      "{.reg .pred p; elect.sync _|p, 0xFFFFFFFF;\n"
      "selp.b32 %0, 1, 0, p;}"
      : "=r"(elected));
  return elected != 0;
}

// Arrives, in the lane that is ACTIVE, and makes the phase wait for BYTES more to be copied.
__device__ inline void arrive_expecting(uint32_t barrier, int bytes, bool active) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %2, 0;\n"
      "@p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;}" ::"r"(barrier),
      "r"(bytes), "r"(static_cast<int>(active))
      : "memory");
}

// BYTES, a multiple of 16, both ends aligned to 16, by every lane that is ACTIVE, its own; they
// count on BARRIER.
__device__ inline void copy_bulk(uint32_t shared, const void* global, int bytes, uint32_t barrier,
                                 bool active) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %4, 0;\n"
      "@p cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
      "[%3];}" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(barrier), "r"(static_cast<int>(active))
      : "memory");
}

}  // namespace micromix::kernels::cuda
