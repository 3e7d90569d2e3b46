// Instead of cuda/, where it is not built.
#include "micromix/base/error.h"
#include "micromix/kernels/cuda/backend.h"

namespace micromix::kernels {
namespace {

[[noreturn]] void refuse() {
  throw Error("this build has no CUDA: configure with -DMICROMIX_CUDA=ON");
}

}  // namespace

void choose_gpu(int) {
  refuse();
}

const Backend& cuda_backend(CudaProducts) {
  refuse();
}

const Backend& cuda_backend() {
  refuse();
}

}  // namespace micromix::kernels
