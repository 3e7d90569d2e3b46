// Whether there is a GPU to test on.
#pragma once

#include <cuda_runtime_api.h>

namespace micromix::testing {

inline bool has_gpu() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

}  // namespace micromix::testing
