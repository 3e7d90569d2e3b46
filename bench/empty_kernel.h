// A launch that does nothing: what every other launch costs at least.
#pragma once

#include <cuda_runtime_api.h>

namespace micromix::bench {

void launch_empty(cudaStream_t stream);

}  // namespace micromix::bench
