#include "micromix/kernels/cuda/blas_api.h"

#include <string>

#include <dlfcn.h>

#include "micromix/base/error.h"

namespace micromix::kernels::cuda {
namespace {

BlasApi open_library() {
  const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
  void* const library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error(fmt::format("CUDA: {} not found, which is part of CUDA {}'s toolkit: {}", name,
                            CUBLAS_VER_MAJOR, one_line(::dlerror())));
  }
  const auto find = [&]<typename Function>(const char* symbol, Function*& function) {
    function = reinterpret_cast<Function*>(::dlsym(library, symbol));
    if (function == nullptr) throw Error(fmt::format("CUDA: {} has no {}", name, symbol));
  };
  BlasApi api{};
  find("cublasLtCreate", api.create);
  find("cublasLtDestroy", api.destroy);
  find("cublasLtGetStatusString", api.get_status_string);
  find("cublasLtMatmul", api.matmul);
  find("cublasLtMatmulAlgoGetHeuristic", api.matmul_algo_get_heuristic);
  find("cublasLtMatmulDescCreate", api.matmul_desc_create);
  find("cublasLtMatmulDescDestroy", api.matmul_desc_destroy);
  find("cublasLtMatmulDescSetAttribute", api.matmul_desc_set_attribute);
  find("cublasLtMatmulPreferenceCreate", api.matmul_preference_create);
  find("cublasLtMatmulPreferenceDestroy", api.matmul_preference_destroy);
  find("cublasLtMatmulPreferenceSetAttribute", api.matmul_preference_set_attribute);
  find("cublasLtMatrixLayoutCreate", api.matrix_layout_create);
  find("cublasLtMatrixLayoutDestroy", api.matrix_layout_destroy);
  return api;
}

}  // namespace

const BlasApi& blas_api() {
  static const BlasApi api = open_library();  // for as long as the process runs
  return api;
}

}  // namespace micromix::kernels::cuda
