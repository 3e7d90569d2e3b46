// What kernels/cuda/devices.h says where nothing was built for CUDA.
#include "micromix/kernels/cuda/devices.h"

namespace micromix::kernels::cuda {

std::vector<GpuInfo> list_gpus() {
  return {};
}

std::string why_no_gpus() {
  return "this build is without CUDA";
}

std::string cuda_versions() {
  return "";
}

std::string_view product_of(const GpuInfo&, mx::Format, std::optional<mx::Format>) {
  return "";
}

}  // namespace micromix::kernels::cuda
