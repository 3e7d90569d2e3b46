// The backend for NVIDIA GPUs. Its buffers, plans, caches and weights lie in device memory, and
// everything it does is queued on one stream: only Backend::read waits. For one thread at a time.
#pragma once

#include "micromix/kernels/cuda/products.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels {

// Makes GPU INDEX, as cuda/devices.h counts, the current one of this thread, for whatever follows.
// Throws Error where there is none of that index, or no CUDA, or the process, which works on one,
// works on another already.
void choose_gpu(int index);

// On the current device, with block-scaled products where it has them and exact ones elsewhere, or
// those that the environment variable MICROMIX_CUDA_PRODUCTS names. Throws Error where there is no
// device, or it is older than sm_80 (Ampere), or the variable names none, or this build has no
// CUDA.
const Backend& cuda_backend();

const Backend& cuda_backend(CudaProducts products);

}  // namespace micromix::kernels
