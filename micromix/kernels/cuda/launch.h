// Launching kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "micromix/kernels/cuda/device.h"

namespace micromix::kernels::cuda {

inline int divide_up(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

// Lets KERNEL have as much dynamic shared memory as a block may.
void allow_shared_memory(const void* kernel);
template <typename... Arguments>
void allow_shared_memory(void (*kernel)(Arguments...)) {
  allow_shared_memory(reinterpret_cast<const void*>(kernel));
}

// How many blocks of THREADS fit a multiprocessor at once, one at least.
int blocks_per_processor(const void* kernel, int threads, int shared_bytes);
template <typename... Arguments>
int blocks_per_processor(void (*kernel)(Arguments...), int threads, int shared_bytes) {
  return blocks_per_processor(reinterpret_cast<const void*>(kernel), threads, shared_bytes);
}

// How many clusters of SIZE such blocks fit the GPU at once (sm_90).
int clusters_at_once(const void* kernel, int threads, int shared_bytes, int size);
template <typename... Arguments>
int clusters_at_once(void (*kernel)(Arguments...), int threads, int shared_bytes, int size) {
  return clusters_at_once(reinterpret_cast<const void*>(kernel), threads, shared_bytes, size);
}

// The largest size, MOST at most, of clusters of which CLUSTERS run at once; 1 where none do.
template <typename... Arguments>
int largest_clusters(void (*kernel)(Arguments...), int threads, int shared_bytes, int64_t clusters,
                     int most) {
  constexpr int kMostBlocks = 8;  // on any GPU
  int size = std::min(kMostBlocks, most);
  while (size > 1 && clusters_at_once(kernel, threads, shared_bytes, size) < clusters) --size;
  return size;
}

// Whether the code of KERNEL that runs here was compiled for compute capability CAPABILITY (90 is
// 9.0) or later: it may be an older GPU's, translated.
bool code_is_for(const void* kernel, int capability);
template <typename... Arguments>
bool code_is_for(void (*kernel)(Arguments...), int capability) {
  return code_is_for(reinterpret_cast<const void*>(kernel), capability);
}

struct LaunchShape {
  dim3 blocks;
  int threads;
  int shared_bytes;          // dynamic
  dim3 cluster = {1, 1, 1};  // x and y
};

// A shape as CUDA takes it. OVERLAP: programmatic dependent launch.
class LaunchConfig {
 public:
  LaunchConfig(const LaunchShape& shape, cudaStream_t stream, bool overlap);
  LaunchConfig(const LaunchConfig&) = delete;
  const cudaLaunchConfig_t* get() const { return &config_; }

 private:
  cudaLaunchAttribute attributes_[2];
  cudaLaunchConfig_t config_{};  // points to them
};

template <typename... Arguments>
void launch(void (*kernel)(Arguments...), const LaunchShape& shape, cudaStream_t stream,
            bool overlap, const Arguments&... arguments) {
  allow_shared_memory(kernel);
  const LaunchConfig config(shape, stream, overlap);
  check(cudaLaunchKernelEx(config.get(), kernel, arguments...), "launching");
}

}  // namespace micromix::kernels::cuda
