// Small operations on rows: those that are fused with nothing.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace micromix::kernels::cuda {

// SUM [count] += TERM. Asynchronous on STREAM, as all here.
void add(int64_t count, float* sum, const __nv_bfloat16* term, cudaStream_t stream);

// OUT [count] = X.
void widen(int64_t count, const __nv_bfloat16* x, float* out, cudaStream_t stream);

// See Backend::place_heads. X [m, heads * head_dim] in place, each value rounded once at the end;
// GAIN [head_dim] may be null, ANGLES is [m, head_dim].
void place_heads(int64_t m, int64_t heads, int64_t head_dim, __nv_bfloat16* x, const float* gain,
                 float eps, const float* angles, cudaStream_t stream);

}  // namespace micromix::kernels::cuda
