#include "bench/empty_kernel.h"

#include "micromix/kernels/cuda/device.h"

namespace micromix::bench {
namespace {

__global__ void empty_kernel() {}

}  // namespace

void launch_empty(cudaStream_t stream) {
  empty_kernel<<<1, 32, 0, stream>>>();
  kernels::cuda::check(cudaGetLastError(), "empty kernel");
}

}  // namespace micromix::bench
