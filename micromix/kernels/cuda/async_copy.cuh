// Copies from global to shared memory that threads do not wait for (cp.async, sm_80).
#pragma once

#include <cstdint>

namespace micromix::kernels::cuda {

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes, both ends aligned to them. Not ACTIVE: zeros, and nothing is read.
__device__ inline void copy_async(void* shared, const void* global, bool active = true) {
  asm volatile(
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
      "l"(global), "r"(active ? 16 : 0)
      : "memory");
}

// The same at an OFFSET known at compile time from both addresses, which costs no instruction. Not
// ACTIVE: nothing.
template <int offset>
__device__ void copy_async_at(uint32_t shared, const void* global, bool active) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %4, 0;\n"
      "@p cp.async.cg.shared.global.L2::128B [%0 + %2], [%1 + %3], 16;}" ::"r"(shared),
      "l"(global), "n"(offset), "n"(offset), "r"(static_cast<int>(active))
      : "memory");
}

// Ends a group of copies; empty ones count.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all but the last PENDING groups of this thread have arrived.
template <int pending>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

}  // namespace micromix::kernels::cuda
