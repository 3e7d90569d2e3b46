#include "bench/mixed_cuda_product.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include <fmt/format.h>

#include "bench/cuda_timing.h"
#include "micromix/base/error.h"
#include "micromix/kernels/cuda/quantize.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/block.h"

namespace micromix::bench {

namespace cuda = kernels::cuda;
namespace block_scaled = kernels::cuda::block_scaled;
using kernels::CudaProducts;

MixedCudaWeight::MixedCudaWeight(const std::string& plan, CudaProducts product,
                                 const CudaShape& shape, int64_t l2_bytes, cudaStream_t stream)
    : plan_name_(plan),
      product_(product),
      host_(random_weight(shape.n, cuda_segments(plan, shape), 3)),
      plan_(random_plan(cuda_segments(plan, shape), 1)),
      device_plan_(plan_) {
  do {
    if (product != CudaProducts::kBlockScaled) {
      exact_.emplace_back(host_.weight, stream);
    } else {
      block_scaled_.emplace_back(host_.weight, stream);
    }
  } while (copies() < cold_copies(bytes(), l2_bytes));
  cuda::check(cudaDeviceSynchronize(), "pack");  // the plan's copy too
}

MixedCudaProduct::MixedCudaProduct(const MixedCudaWeight& weight, const DeviceRows& x, int64_t m,
                                   __nv_bfloat16* y, cudaStream_t stream)
    : weight_(weight), x_(x), m_(m), y_(y), stream_(stream) {
  quantize();
}

void MixedCudaProduct::quantize() {
  const cuda::PlanView& plan = weight_.plan_view();
  cuda::QuantizedOutputs outputs;
  if (weight_.product() != CudaProducts::kBlockScaled) {
    outputs.exact = &exact_.resize(plan, m_);
  } else {
    instructions_ = block_scaled::best_instructions();
    outputs.codes = &codes_.resize(plan, m_);
  }
  const cuda::PlainRows source = {static_cast<const __nv_bfloat16*>(x_.data())};
  cuda::quantize(plan, m_, source, outputs, stream_);
  cuda::check(cudaStreamSynchronize(stream_), "quantize");
}

void MixedCudaProduct::multiply(int64_t copy, bool overlap) {
  if (weight_.product() != CudaProducts::kBlockScaled) {
    cuda::multiply(weight_.exact(copy), exact_.view(), y_, workspace_, stream_, overlap,
                   weight_.product());
  } else {
    block_scaled::multiply(weight_.block_scaled(copy), codes_.view(), y_, stream_, instructions_,
                           overlap);
  }
}

void MixedCudaProduct::check() {
  std::vector<uint16_t> first, y;
  run({0}, false, first);
  check_outputs(first);
  std::vector<int64_t> all(weight_.copies());
  std::iota(all.begin(), all.end(), 0);
  for (int64_t copy : all) {
    run({copy}, false, y);
    if (y != first) {
      throw Error(fmt::format("{}: {} differs", where(),
                              copy == 0 ? "a second run" : "a copy of the weight"));
    }
  }
  run(all, true, y);
  if (y != first) throw Error(where() + ": overlapping launches differ");
}

// Multiplies with COPIES one after another; Y is what is left.
void MixedCudaProduct::run(const std::vector<int64_t>& copies, bool overlap,
                           std::vector<uint16_t>& y) {
  y.resize(m_ * weight_.host().n);
  const size_t bytes = y.size() * sizeof(uint16_t);
  cuda::check(cudaMemsetAsync(y_, 0xFF, bytes, stream_), "set");  // NaN
  for (int64_t copy : copies) multiply(copy, overlap);
  cuda::check(cudaMemcpyAsync(y.data(), y_, bytes, cudaMemcpyDeviceToHost, stream_), "copy");
  cuda::check(cudaStreamSynchronize(stream_), "product");
}

void MixedCudaProduct::check_outputs(std::span<const uint16_t> y) const {
  constexpr int kOutputs = 64;
  constexpr int64_t kRows = 16;  // more would take longer to quantize than all else
  std::mt19937_64 random(4);
  const int64_t n = weight_.host().n, k = weight_.host().k;
  const int64_t count = std::min(m_, kRows);
  std::vector<int64_t> rows(count);
  std::vector<float> x(count * k);
  for (int64_t i = 0; i < count; ++i) {
    rows[i] = m_ <= kRows ? i : i == 0 ? m_ - 1 : static_cast<int64_t>(random() % m_);
    for (int64_t j = 0; j < k; ++j) x[i * k + j] = x_.value(rows[i], j);
  }
  const auto quantized = kernels::quantize_rows(weight_.plan(), count, x.data());

  const int64_t additions = weight_.product() == CudaProducts::kBlockScaled
                                ? block_scaled::product_additions(k)
                                : cuda::product_additions(k);
  for (int i = 0; i < kOutputs; ++i) {
    const int64_t row = i % count;
    const int64_t column = i == 0 ? n - 1 : static_cast<int64_t>(random() % n);
    const auto exact = kernels::oracle_output(weight_.host(), quantized, row, column);
    const float found = mx::to_float(mx::BFloat16{y[rows[row] * n + column]});
    // NaN is wrong too.
    if (!(std::fabs(found - exact.value) <= kernels::error_bound(exact, additions))) {
      throw_invalid(where(), fmt::format("[{}, {}]", rows[row], column), fmt::to_string(found),
                    fmt::to_string(exact.value));
    }
  }
}

std::string MixedCudaProduct::where() const {
  return fmt::format("{} {}, m {}, n {}, k {}", name(weight_.product()), weight_.plan_name(), m_,
                     weight_.host().n, weight_.host().k);
}

}  // namespace micromix::bench
