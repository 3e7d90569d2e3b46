// Fused quantizers: rows gathered by a plan's permutation and quantized per block, every segment in
// one launch, one pass over memory. Codes and scales are bit-equal to the oracle (mx/block.h).
#pragma once

#include <cuda_runtime_api.h>

#include "micromix/kernels/cuda/activations.h"

namespace micromix::kernels::cuda {

// What the rows are made of. Device pointers, row-major [m, k] unless said otherwise; each 16-byte
// aligned at its start.
struct PlainRows {
  const __nv_bfloat16* x;
};
// residual += addend (where not null; the sum is written back), then RMSNorm (Zhang and Sennrich
// 2019): residual / sqrt(mean(residual^2) + eps) * gain, rounded once to BF16.
struct RmsNormRows {
  float* residual;
  const __nv_bfloat16* addend;
  const float* gain;  // [k]
  float eps;
};
// SwiGLU (Shazeer 2020): silu(gate) * up, rounded once to BF16.
struct SwigluRows {
  const __nv_bfloat16* gate;
  const __nv_bfloat16* up;
};

// Where they go: any that is not null.
struct QuantizedOutputs {
  const ExactRows* exact = nullptr;
  const CodeRows* codes = nullptr;
  __nv_bfloat16* rows = nullptr;  // [m, k]: rounded, neither gathered nor quantized
};

// Asynchronous on STREAM. K from 1 to 65536, M from 1 to 2^30. Throws Error where M is more
// or a launch fails.
void quantize(const PlanView& plan, int64_t m, const PlainRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream);
void quantize(const PlanView& plan, int64_t m, const RmsNormRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream);
void quantize(const PlanView& plan, int64_t m, const SwigluRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream);

}  // namespace micromix::kernels::cuda
