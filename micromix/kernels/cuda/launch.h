// Launching kernels. For CUDA sources.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "micromix/kernels/cuda/device.h"

namespace micromix::kernels::cuda {

inline int divide_up(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

// With SHARED_BYTES of dynamic shared memory. OVERLAP: programmatic dependent launch.
template <typename... Arguments>
void launch(void (*kernel)(Arguments...), dim3 blocks, int threads, int shared_bytes,
            cudaStream_t stream, bool overlap, Arguments... arguments) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
        "cudaFuncSetAttribute");
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

// How many blocks of THREADS fit a multiprocessor at once, one at least.
template <typename... Arguments>
int blocks_per_processor(void (*kernel)(Arguments...), int threads, int shared_bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
        "cudaFuncSetAttribute");
  int blocks = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return blocks > 1 ? blocks : 1;
}

}  // namespace micromix::kernels::cuda
