// The GPUs of this machine. Without CUDA's headers, and also in a build without CUDA, which has
// none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "micromix/mx/format.h"

namespace micromix::kernels::cuda {

struct GpuInfo {
  int index;  // as CUDA counts
  std::string name;
  int major, minor;  // compute capability
  int multiprocessors;
  int64_t free_bytes, total_bytes;  // of memory; 0 where it cannot be asked
  std::string problem;              // one line on why it cannot be used; empty where it can
};

// Every GPU that the driver shows, usable or not. Makes a context on each, to ask for its memory.
std::vector<GpuInfo> list_gpus();

// One line on why list_gpus() is empty; empty where it is not.
std::string why_no_gpus();

// One line on why a GPU of this compute capability cannot be used; empty where it can. Only in a
// build with CUDA.
std::string capability_problem(int major, int minor);

// "driver 13.0, runtime 13.0": the CUDA versions of both. Empty in a build without CUDA.
std::string cuda_versions();

// What multiplies a weight by an activation format (none: BF16) on a usable GPU.
std::string_view product_of(const GpuInfo& gpu, mx::Format weight,
                            std::optional<mx::Format> activation);

}  // namespace micromix::kernels::cuda
