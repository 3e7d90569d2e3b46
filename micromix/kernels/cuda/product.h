// The exact mixed linear on the tensor cores of any GPU since Ampere (sm_80): weights stay packed
// and are expanded to BF16 in registers.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/packed_weight.h"
#include "micromix/kernels/cuda/products.h"

namespace micromix::kernels::cuda {

// Partial sums of products whose K is split over blocks; grows as needed, one per stream.
struct Workspace {
  DeviceArray<float> partials;
  DeviceArray<uint32_t> counters;  // zero between products

  // Room for so many of both; counters are zero. Growing waits for the device and loses what was
  // there.
  void reserve(int64_t floats, int64_t zeros, cudaStream_t stream);
};

// Y [m, n] BF16, aligned to 16 bytes, = X times the weight, plus its bias. X was quantized by a
// plan with the weight's segments. Asynchronous on STREAM, one launch. With OVERLAP the launch may
// begin before the one ahead of it on the stream has ended (programmatic dependent launch; sm_90
// up).
void multiply(const PackedWeight& weight, const ExactRows& x, __nv_bfloat16* y,
              Workspace& workspace, cudaStream_t stream, bool overlap = false,
              CudaProducts products = CudaProducts::kExact);

// FP32 additions in the longest chain behind an output, for error_bound().
int64_t product_additions(int64_t k);

}  // namespace micromix::kernels::cuda
