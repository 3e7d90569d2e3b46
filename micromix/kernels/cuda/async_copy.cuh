// Copies from global to shared memory that threads do not wait for (cp.async, sm_80).
#pragma once

#include <cstdint>

namespace micromix::kernels::cuda {

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// A kernel's dynamic shared memory; products declare none themselves. At a multiple of 128 bytes: a
// warp's cp.async to lines that straddle two of them reads the L2 cache twice, a quarter of the
// product's time at 64 rows (docs/cuda-kernels.md). And of 512, which a swizzle of 64 bytes needs.
__device__ inline uint8_t* dynamic_shared() {
  extern __shared__ __align__(512) uint8_t shared[];
  return shared;
}

// 16 bytes, both ends aligned to them.
__device__ inline void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

// 8 bytes.
__device__ inline void copy_async_8(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}

// 16 bytes at OFFSETs known at compile time from both addresses, which cost no instruction. Not
// ACTIVE: nothing.
template <int shared_offset, int global_offset>
__device__ void copy_async_at(uint32_t shared, const void* global, bool active) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %4, 0;\n"
      "@p cp.async.cg.shared.global.L2::128B [%0 + %2], [%1 + %3], 16;}" ::"r"(shared),
      "l"(global), "n"(shared_offset), "n"(global_offset), "r"(static_cast<int>(active))
      : "memory");
}

// The same, BYTES being 16 or 0: then zeros, and nothing is read.
template <int shared_offset, int global_offset>
__device__ void copy_async_or_zeros(uint32_t shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0 + %2], [%1 + %3], 16, %4;" ::"r"(shared),
               "l"(global), "n"(shared_offset), "n"(global_offset), "r"(bytes)
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
