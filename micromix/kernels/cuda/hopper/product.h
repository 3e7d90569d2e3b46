// The exact mixed linear for many rows of X on Hopper: kernels for compute capability 9.0 alone,
// whose tensor cores work while threads go on and read X from shared memory (wgmma).
#pragma once

#include <cuda_runtime_api.h>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/packed_layout.h"
#include "micromix/kernels/cuda/product.h"

namespace micromix::kernels::cuda::hopper {

// Whether this GPU is such, and it is quicker than the kernels that every GPU has.
bool gains(const WeightView& weight, int64_t m);

// As cuda::multiply(), which calls it, for any M on a GPU of capability 9.0.
void multiply(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y, Workspace& workspace,
              cudaStream_t stream, bool overlap);

}  // namespace micromix::kernels::cuda::hopper
