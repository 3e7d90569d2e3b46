// Barriers of some of a block's warps (bar.sync and bar.arrive). Number 0 is __syncthreads.
#pragma once

namespace micromix::kernels::cuda {

// THREADS come to barrier NUMBER in all, whole warps of those that wait and those that only arrive.
// Either orders memory accesses before and after it.
template <int number, int threads>
struct NamedBarrier {
  static_assert(number > 0 && number < 16 && threads % 32 == 0);

  __device__ static void wait() {
    asm volatile("bar.sync %0, %1;" ::"n"(number), "n"(threads) : "memory");
  }
  __device__ static void arrive() {
    asm volatile("bar.arrive %0, %1;" ::"n"(number), "n"(threads) : "memory");
  }
};

}  // namespace micromix::kernels::cuda
