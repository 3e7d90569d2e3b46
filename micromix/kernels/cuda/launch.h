// Launching kernels.
#pragma once

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

// Whether the code of KERNEL that runs here was compiled for compute capability CAPABILITY (90 is
// 9.0) or later: it may be an older GPU's, translated.
bool code_is_for(const void* kernel, int capability);
template <typename... Arguments>
bool code_is_for(void (*kernel)(Arguments...), int capability) {
  return code_is_for(reinterpret_cast<const void*>(kernel), capability);
}

// With SHARED_BYTES of dynamic shared memory. OVERLAP: programmatic dependent launch.
template <typename... Arguments>
void launch(void (*kernel)(Arguments...), dim3 blocks, int threads, int shared_bytes,
            cudaStream_t stream, bool overlap, Arguments... arguments) {
  allow_shared_memory(kernel);
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), "multiplying");
}

}  // namespace micromix::kernels::cuda
