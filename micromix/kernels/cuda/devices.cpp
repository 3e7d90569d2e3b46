#include "micromix/kernels/cuda/devices.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

namespace micromix::kernels::cuda {
namespace {

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

// Fails where there is no driver or no GPU. Such an error must not meet the next check of a launch.
cudaError_t count_gpus(int& count) {
  count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  return status;
}

// Makes a context on the GPU, which is what fails where another process holds it alone.
void ask_for_memory(GpuInfo& gpu) {
  size_t free = 0, total = 0;
  cudaError_t status = cudaSetDevice(gpu.index);
  if (status == cudaSuccess) status = cudaMemGetInfo(&free, &total);
  cudaGetLastError();
  if (status != cudaSuccess) gpu.problem = cudaGetErrorString(status);
  gpu.free_bytes = static_cast<int64_t>(free);
  gpu.total_bytes = static_cast<int64_t>(total);
}

GpuInfo describe(int index) {
  GpuInfo gpu = {index, "", 0, 0, 0, 0, 0, ""};
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, index);
  cudaGetLastError();
  if (status != cudaSuccess) {
    gpu.problem = cudaGetErrorString(status);
    return gpu;
  }
  gpu.name = properties.name;
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.multiprocessors = properties.multiProcessorCount;
  gpu.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  gpu.problem = capability_problem(gpu.major, gpu.minor);
  if (gpu.problem.empty()) ask_for_memory(gpu);
  return gpu;
}

}  // namespace

std::vector<GpuInfo> list_gpus() {
  int count = 0;
  if (count_gpus(count) != cudaSuccess) return {};
  int current = 0;
  cudaGetDevice(&current);
  std::vector<GpuInfo> gpus;
  for (int index = 0; index < count; ++index) gpus.push_back(describe(index));
  cudaSetDevice(current);
  return gpus;
}

std::string why_no_gpus() {
  int count = 0;
  const cudaError_t status = count_gpus(count);
  if (count > 0) return "";
  if (status == cudaSuccess || status == cudaErrorNoDevice) return "the CUDA driver shows no GPU";
  const int driver = driver_version();
  if (driver == 0) return "this machine has no CUDA driver";
  if (status == cudaErrorInsufficientDriver) {
    return fmt::format("the driver is for CUDA {}, and this build needs CUDA {}",
                       version_text(driver), version_text(runtime_version()));
  }
  return cudaGetErrorString(status);
}

std::string capability_problem(int major, int minor) {
  constexpr int kLeastMajor = 8;  // mma.sync on BF16
  if (major >= kLeastMajor) return "";
  return fmt::format("found compute capability {}.{}, expected {}.0 (Ampere) or later", major,
                     minor, kLeastMajor);
}

std::string cuda_versions() {
  const int driver = driver_version();
  return fmt::format("driver {}, runtime {}", driver == 0 ? "none" : version_text(driver),
                     version_text(runtime_version()));
}

std::string_view product_of([[maybe_unused]] const GpuInfo& gpu, [[maybe_unused]] mx::Format weight,
                            [[maybe_unused]] std::optional<mx::Format> activation) {
#ifdef MICROMIX_BLOCK_SCALED
  if (gpu.major == 12 && activation) {
    return weight == mx::Format::kE2M1 && activation == mx::Format::kE2M1
               ? "block-scaled mma.sync, mxf4 (sm_120)"
               : "block-scaled mma.sync, mxf8f6f4 as E4M3 (sm_120)";
  }
#endif
#ifdef MICROMIX_HOPPER
  if (gpu.major == 9 && gpu.minor == 0) return "exact BF16 mma.sync, wgmma for many rows (sm_90a)";
#endif
  return "exact BF16 mma.sync (sm_80+)";
}

}  // namespace micromix::kernels::cuda
