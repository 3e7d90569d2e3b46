// Barriers in shared memory that threads arrive at and wait for apart (mbarrier, sm_80).
#pragma once

#include <cstdint>

namespace micromix::kernels::cuda {

// BARRIER is the shared address of eight aligned bytes. By one thread, before a barrier of all that
// use it. A phase is complete after so many ARRIVALS; then the next begins.
__device__ inline void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ inline void arrive(uint32_t barrier) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.shared.b64 state, [%0];}" ::"r"(barrier)
               : "memory");
}

// Until the phase of this PARITY is complete: phases' parities are 0, 1, 0, ...
__device__ inline void wait_for_phase(uint32_t barrier, int parity) {
  uint32_t done;
  do {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    // Sleeps for a while.
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
#else
    asm volatile(
        "{.reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
#endif
  } while (done == 0);
}

// A place in a ring of so many stages, a barrier each, and the parity of its barrier's phase there.
template <int stages>
struct RingPlace {
  int stage = 0;
  int parity = 0;

  __device__ void advance() {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

}  // namespace micromix::kernels::cuda
