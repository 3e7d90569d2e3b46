// Which products there are on NVIDIA GPUs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

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

}  // namespace micromix::kernels
