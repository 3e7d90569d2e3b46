// Instead of cuda/, where it is not built.
#include "micromix/base/error.h"
#include "micromix/kernels/cuda/backend.h"

namespace micromix::kernels {

const Backend& cuda_backend(CudaProducts) {
  return cuda_backend();
}

const Backend& cuda_backend() {
  throw Error("this build has no CUDA: configure with -DMICROMIX_CUDA=ON");
}

}  // namespace micromix::kernels
