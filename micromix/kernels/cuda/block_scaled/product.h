// The product on GPUs of compute capability 12.x, whose tensor cores multiply MX blocks with their
// scales: the oracle of DESIGN section 3 up to FP32 summation.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/block_scaled/weight.h"

namespace micromix::kernels::cuda::block_scaled {

enum class Instructions : uint8_t {
  kNative,    // compute capability 12.x
  kEmulated,  // any
};

// Whether this build has the native instructions for the current device.
bool native_instructions_work();

// The native ones where they work.
Instructions best_instructions();

// Y [m, n] = X WEIGHT^T + bias in BF16, of X's m >= 1 rows. OVERLAP launches it so that it may
// begin while the kernel ahead of it in STREAM ends (programmatic dependent launch).
void multiply(const Weight& weight, const CodeRows& x, __nv_bfloat16* y, cudaStream_t stream,
              Instructions instructions, bool overlap = false);

// The FP32 additions in an output's longest chain, of K channels.
int64_t product_additions(int64_t k);

}  // namespace micromix::kernels::cuda::block_scaled
