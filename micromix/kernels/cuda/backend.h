// The backend for NVIDIA GPUs. Its buffers, plans, caches and weights lie in device memory, and
// everything it does is queued on one stream: only Backend::read waits. For one thread at a time.
#pragma once

#include <cstdint>
#include <string_view>

#include "micromix/kernels/linear.h"

namespace micromix::kernels {

// What multiplies quantized activations. BF16 ones are always multiplied exactly.
enum class CudaProducts : uint8_t {
  kExact,        // cuda/product.h
  kBlockScaled,  // cuda/block_scaled/product.h, emulated (slowly) where the GPU has no instructions
};

constexpr std::string_view name(CudaProducts product) {
  return product == CudaProducts::kExact ? "exact" : "block-scaled";
}

// Makes GPU INDEX, as cuda/devices.h counts, the current one of this thread, for whatever follows.
// Throws Error where there is none of that index, or no CUDA, or the process, which works on one,
// works on another already.
void choose_gpu(int index);

// On the current device, with block-scaled products where it has them, or those that the
// environment variable MICROMIX_CUDA_PRODUCTS names (exact, block-scaled). Throws Error where there
// is no device, or it is older than sm_80 (Ampere), or the variable is something else, or this
// build has no CUDA.
const Backend& cuda_backend();

const Backend& cuda_backend(CudaProducts products);

}  // namespace micromix::kernels
