// The backend for NVIDIA GPUs. Its buffers, plans, caches and weights lie in device memory, and
// everything it does is queued on one stream: only Backend::read waits. For one thread at a time.
#pragma once

#include "micromix/kernels/linear.h"

namespace micromix::kernels {

// On the current device. Throws Error where there is none, or it is older than sm_80 (Ampere), or
// this build has no CUDA.
const Backend& cuda_backend();

}  // namespace micromix::kernels
