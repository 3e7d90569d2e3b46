#include "micromix/kernels/cuda/device.h"

#include "micromix/base/error.h"

namespace micromix::kernels::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(fmt::format("CUDA: {}: {}", what, cudaGetErrorString(status)));
}

void fail(const std::string& message) {
  throw Error("CUDA: " + message);
}

const DeviceLimits& device_limits() {
  static const DeviceLimits limits = [] {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const auto attribute = [device](cudaDeviceAttr which) {
      int value = 0;
      check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
      return value;
    };
    return DeviceLimits{attribute(cudaDevAttrComputeCapabilityMajor) * 10 +
                            attribute(cudaDevAttrComputeCapabilityMinor),
                        attribute(cudaDevAttrMultiProcessorCount),
                        attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
                        attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)};
  }();
  return limits;
}

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is reported here
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error(fmt::format("CUDA: out of memory: {:.1f} MB asked for, {:.1f} of {:.1f} MB free",
                            static_cast<double>(bytes) / 1e6, static_cast<double>(free) / 1e6,
                            static_cast<double>(total) / 1e6));
  }
  check(status, "cudaMalloc");
  return memory;
}

}  // namespace micromix::kernels::cuda
