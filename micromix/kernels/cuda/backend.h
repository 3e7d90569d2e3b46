// The backend for NVIDIA GPUs. Its buffers, plans, caches and weights lie in device memory, and
// everything it does is queued on one stream: only Backend::read waits. For one thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "micromix/kernels/linear.h"

namespace micromix::kernels {

// What multiplies quantized activations. BF16 ones are always multiplied exactly.
enum class CudaProducts : uint8_t {
  kExact,         // cuda/product.h
  kExactMmaSync,  // the same by the kernels that every GPU has
  kBlockScaled,  // cuda/block_scaled/product.h, emulated (slowly) where the GPU has no instructions
};
inline constexpr std::array kCudaProducts = {CudaProducts::kExact, CudaProducts::kExactMmaSync,
                                             CudaProducts::kBlockScaled};

constexpr std::string_view name(CudaProducts product) {
  constexpr std::array<std::string_view, kCudaProducts.size()> kNames = {"exact", "exact-mma-sync",
                                                                         "block-scaled"};
  return kNames[static_cast<size_t>(product)];
}

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
