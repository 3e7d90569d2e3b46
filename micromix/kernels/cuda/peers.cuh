// The thread blocks that share a row, or an output tile: a cluster (sm_90), or one alone. They
// exchange what they need of each other through their shared memory.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/host_device.h"

namespace micromix::kernels::cuda {

// A block alone.
struct NoPeers {
  static constexpr bool kAlone = true;

  __device__ int rank() const { return 0; }
  __device__ int count() const { return 1; }
  __device__ void begin() const {}
  __device__ void wait_for_begin() const {}
  template <typename T>
  __device__ void store(T* to, const T& value) const {
    *to = value;
  }
  __device__ void synchronize() const { __syncthreads(); }
};

// A cluster; nothing happens before sm_90.
struct ClusterPeers {
  static constexpr bool kAlone = false;
  int32_t ranks;

  __device__ int rank() const {
    uint32_t rank = 0;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return static_cast<int>(rank);
  }
  __device__ int count() const {
    return ranks;
  }

  // Shared memory of a block that has not begun must not be written: all begin, and wait before
  // they first store.
  __device__ void begin() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
  }
  __device__ void wait_for_begin() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
  }

  // To the same place in every block's shared memory.
  __device__ void store(float* to, float value) const {
#if __CUDA_ARCH__ >= 900
    for (int i = 0; i < ranks; ++i) {
      asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(at_rank(to, i)), "f"(value) : "memory");
    }
#endif
  }
  __device__ void store(uint2* to, const uint2& value) const {
#if __CUDA_ARCH__ >= 900
    for (int i = 0; i < ranks; ++i) {
      asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(at_rank(to, i)), "r"(value.x),
                   "r"(value.y)
                   : "memory");
    }
#endif
  }
  __device__ void store(uint4* to, const uint4& value) const {
#if __CUDA_ARCH__ >= 900
    for (int i = 0; i < ranks; ++i) {
      asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at_rank(to, i)),
                   "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
                   : "memory");
    }
#endif
  }

  // From the same place in block RANK's shared memory.
  __device__ static float4 load(const float4* from, int rank) {
    float4 value{};
#if __CUDA_ARCH__ >= 900
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(at_rank(from, rank))
                 : "memory");
#endif
    return value;
  }

  // Stores before are seen after, those to global memory too.
  __device__ void synchronize() const {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "barrier.cluster.arrive.release;\n"
        "barrier.cluster.wait.acquire;" ::
            : "memory");
#endif
  }

  // Waits until no block reads another's shared memory any more, which is there until its block
  // ends. What was read must have been used, by stores to memory, which need not be seen.
  __device__ void end() const {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "barrier.cluster.arrive.relaxed;\n"
        "barrier.cluster.wait;" ::
            : "memory");
#endif
  }

 private:
  __device__ static uint32_t at_rank(const void* shared, int rank) {
    uint32_t address = 0;
#if __CUDA_ARCH__ >= 900
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(address)
        : "r"(shared_address(shared)), "r"(rank));
#endif
    return address;
  }
};

}  // namespace micromix::kernels::cuda
