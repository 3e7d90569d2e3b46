// The backend on a GPU.
#include "tests/kernels/subjects.h"

#include "micromix/base/error.h"
#include "micromix/kernels/cuda/attention.h"
#include "micromix/kernels/cuda/backend.h"
#include "micromix/kernels/cuda/block_scaled/product.h"
#include "micromix/kernels/cuda/product.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::testing {
namespace {

const kernels::Backend* backend(kernels::CudaProducts products) {
  try {
    return &kernels::cuda_backend(products);
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace

std::vector<Subject> subjects() {
  Subject exact = {"cuda",
                   backend(kernels::CudaProducts::kExact),
                   kernels::cuda::product_additions,
                   [](float value) { return mx::round_to_bfloat16(value); },
                   0x1p-8,
                   kernels::cuda::attention_error};
  Subject mma_sync = exact;
  mma_sync.name = "cuda_exact_mma_sync";
  mma_sync.backend = backend(kernels::CudaProducts::kExactMmaSync);
  Subject block_scaled = exact;
  block_scaled.name = "cuda_block_scaled";
  block_scaled.backend = backend(kernels::CudaProducts::kBlockScaled);
  block_scaled.additions = kernels::cuda::block_scaled::product_additions;
  return {exact, mma_sync, block_scaled};
}

}  // namespace micromix::testing
