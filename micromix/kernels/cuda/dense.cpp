#include "micromix/kernels/cuda/dense.h"

#include <vector>

#include "micromix/base/error.h"
#include "micromix/kernels/cuda/blas_api.h"
#include "micromix/kernels/reference/dense.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::kernels::cuda {
namespace {

// What NVIDIA recommends for Hopper; older GPUs ask for less.
constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(fmt::format("cuBLASLt: {}: {}", what, blas_api().get_status_string(status)));
}

std::vector<mx::BFloat16> rounded(const DenseWeight& weight) {
  std::vector<mx::BFloat16> result(weight.n * weight.k);
#pragma omp parallel
  {
    std::vector<float> row(weight.k);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < weight.n; ++i) {
      decode_dense(weight, i, 0, weight.k, row.data());
      for (int64_t j = 0; j < weight.k; ++j) result[i * weight.k + j] = mx::to_bfloat16(row[j]);
    }
  }
  return result;
}

void upload(const void* values, int64_t count, DeviceArray<__nv_bfloat16>& to) {
  static_assert(sizeof(mx::BFloat16) == sizeof(__nv_bfloat16));
  to.resize(count);
  cuda::check(cudaMemcpy(to.data(), values, count * sizeof(__nv_bfloat16), cudaMemcpyHostToDevice),
              "copy");
}

template <typename T>
void set(cublasLtMatmulDesc_t matmul, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(blas_api().matmul_desc_set_attribute(matmul, attribute, &value, sizeof value), "attribute");
}

}  // namespace

Blas::Blas() : workspace_(kWorkspaceBytes) {
  check(blas_api().create(&handle_), "create");
}

Blas::~Blas() {
  blas_api().destroy(handle_);
}

// cuBLASLt's matrices are column-major, and so row-major ones transposed: it multiplies
// Y^T [n, m] = W [n, k] X^T [k, m], where W and X^T are stored as [k, n] and [k, m].
struct DenseLinear::Matmul {
  Matmul(const DenseLinear& linear, int64_t m, cudaDataType_t type, const Blas& blas)
      : Matmul() {  // whose descriptors are destroyed should this throw
    check(blas_api().matmul_desc_create(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
    set(matmul, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (linear.bias_.size() > 0) {
      const void* const bias = type == CUDA_R_32F ? static_cast<void*>(linear.wide_bias_.data())
                                                  : static_cast<void*>(linear.bias_.data());
      set(matmul, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
      set(matmul, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    }
    check(blas_api().matrix_layout_create(&w, CUDA_R_16BF, linear.k_, linear.n_, linear.k_),
          "layout");
    check(blas_api().matrix_layout_create(&x, CUDA_R_16BF, linear.k_, m, linear.k_), "layout");
    check(blas_api().matrix_layout_create(&y, type, linear.n_, m, linear.n_), "layout");

    cublasLtMatmulPreference_t preference = nullptr;
    check(blas_api().matmul_preference_create(&preference), "preference");
    const size_t workspace = blas.workspace_bytes();
    blas_api().matmul_preference_set_attribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace, sizeof workspace);
    // An output is rounded once: parts of K meet in FP32, not in the output's type, and not at all
    // where there is a bias, which is added to their rounded sum.
    const uint32_t reductions = linear.bias_.size() > 0 ? CUBLASLT_REDUCTION_SCHEME_NONE
                                                        : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    blas_api().matmul_preference_set_attribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = blas_api().matmul_algo_get_heuristic(
        blas.handle(), matmul, w, x, y, y, preference, 1, &found, &count);
    blas_api().matmul_preference_destroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
      throw Error(fmt::format("cuBLASLt: no kernel for [{}, {}] times [{}, {}]", m, linear.k_,
                              linear.n_, linear.k_));
    }
    algorithm = found.algo;
  }
  ~Matmul() {
    if (y != nullptr) blas_api().matrix_layout_destroy(y);
    if (x != nullptr) blas_api().matrix_layout_destroy(x);
    if (w != nullptr) blas_api().matrix_layout_destroy(w);
    if (matmul != nullptr) blas_api().matmul_desc_destroy(matmul);
  }
  Matmul(const Matmul&) = delete;

  cublasLtMatmulDesc_t matmul = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

 private:
  Matmul() = default;
};

DenseLinear::DenseLinear(const DenseWeight& weight) : n_(weight.n), k_(weight.k) {
  if (weight.type == DenseType::kBF16) {
    upload(weight.data.data(), n_ * k_, weight_);
  } else {
    upload(rounded(weight).data(), n_ * k_, weight_);
  }
  if (weight.bias.empty()) return;
  std::vector<mx::BFloat16> bias;
  std::vector<float> wide;
  for (float value : weight.bias) {
    bias.push_back(mx::to_bfloat16(value));
    wide.push_back(mx::to_float(bias.back()));
  }
  upload(bias.data(), n_, bias_);
  wide_bias_.assign(wide);
}

DenseLinear::~DenseLinear() = default;

void DenseLinear::multiply(int64_t m, const __nv_bfloat16* x, void* y, cudaDataType_t type,
                           const Blas& blas, cudaStream_t stream) const {
  const Matmul& of_rows = matmul(m, type, blas);
  const float one = 1, zero = 0;
  check(blas_api().matmul(blas.handle(), of_rows.matmul, &one, weight_.data(), of_rows.w, x,
                          of_rows.x, &zero, y, of_rows.y, y, of_rows.y, &of_rows.algorithm,
                          blas.workspace(), blas.workspace_bytes(), stream),
        "matmul");
}

const DenseLinear::Matmul& DenseLinear::matmul(int64_t m, cudaDataType_t type,
                                               const Blas& blas) const {
  std::unique_ptr<Matmul>& found = matmuls_[{m, type}];
  if (found == nullptr) found = std::make_unique<Matmul>(*this, m, type, blas);
  return *found;
}

}  // namespace micromix::kernels::cuda
