// The backend on a GPU.
#include "tests/kernels/subjects.h"

#include "micromix/base/error.h"
#include "micromix/kernels/cuda/attention.h"
#include "micromix/kernels/cuda/backend.h"
#include "micromix/kernels/cuda/product.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::testing {
namespace {

const kernels::Backend* backend() {
  try {
    return &kernels::cuda_backend();
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace

std::vector<Subject> subjects() {
  return {{"cuda", backend(), kernels::cuda::product_additions,
           [](float value) { return mx::round_to_bfloat16(value); }, 0x1p-8,
           kernels::cuda::attention_error}};
}

}  // namespace micromix::testing
