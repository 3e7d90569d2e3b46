#include "micromix/quantize/quantize_linear.h"

#include <atomic>
#include <cassert>
#include <cmath>

#include "micromix/base/error.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"

namespace micromix {
namespace {

void quantize_row(std::span<const float> values, mx::ScaleRule rule, int64_t row,
                  QuantizedLinear::Segment& segment) {
  const int64_t blocks = segment.channels / mx::kBlockSize;
  const int64_t bytes = mx::packed_bytes(segment.format, mx::kBlockSize);
  uint8_t codes[mx::kBlockSize];
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t at = row * blocks + block;
    segment.scales[at] = mx::quantize_block(
        segment.format, rule, values.subspan(block * mx::kBlockSize, mx::kBlockSize), codes);
    mx::pack(segment.format, codes, std::span(segment.codes).subspan(at * bytes, bytes));
  }
}

// Row ROW of a dense weight, its channels in PLAN's order, to VALUES. False where it holds NaN or
// Inf.
bool copy_permuted_row(const LinearWeights& linear, const Plan& plan, int64_t row,
                       std::span<float> values) {
  const std::vector<float> source = weight_row(linear, row);
  bool finite = true;
  for (int64_t j = 0; j < linear.k; ++j) {
    values[j] = source[plan.permutation.empty() ? j : plan.permutation[j]];
    finite = finite && std::isfinite(values[j]);
  }
  return finite;
}

[[noreturn]] void throw_not_finite(const LinearWeights& linear) {
  throw_invalid(linear.dense->file->path().string(), linear.dense->name, "NaN or Inf",
                "finite weights");
}

}  // namespace

std::vector<float> weight_row(const LinearWeights& linear, int64_t row) {
  TensorView view = *linear.dense;
  const int64_t bytes = linear.k * size_of(view.dtype);
  view.bytes = view.bytes.subspan(row * bytes, bytes);
  return to_floats(view);
}

kernels::MixedWeight QuantizedLinear::view() const {
  kernels::MixedWeight weight;
  weight.n = n;
  weight.k = k;
  for (const Segment& segment : segments) {
    weight.segments.push_back({segment.format, segment.channels, segment.codes, segment.scales});
  }
  return weight;
}

std::vector<float> permuted_weight(const LinearWeights& linear, const Plan& plan,
                                   std::span<const int32_t> row_order) {
  assert(!linear.quantized() && plan.size() == linear.k);
  std::vector<float> values(linear.n * linear.k);
  std::atomic<bool> finite = true;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < linear.n; ++row) {
    const auto to = std::span(values).subspan(row * linear.k, linear.k);
    if (!copy_permuted_row(linear, plan, row_order.empty() ? row : row_order[row], to)) {
      finite = false;
    }
  }
  if (!finite) throw_not_finite(linear);
  return values;
}

QuantizedLinear empty_quantized_linear(int64_t n, const Plan& plan) {
  QuantizedLinear result;
  result.n = n;
  result.k = plan.size();
  for (size_t i = 0; i < plan.channels.size(); ++i) {
    const mx::Format format = mx::kOperandFormats[i];
    const int64_t channels = plan.channels[i];
    if (channels == 0) continue;
    result.segments.push_back({format, channels,
                               std::vector<uint8_t>(n * mx::packed_bytes(format, channels)),
                               std::vector<uint8_t>(n * channels / mx::kBlockSize)});
  }
  return result;
}

QuantizedLinear quantize_linear(const LinearWeights& linear, const Plan& plan,
                                std::span<const int32_t> row_order, mx::ScaleRule rule) {
  assert(!linear.quantized() && plan.size() == linear.k);
  QuantizedLinear result = empty_quantized_linear(linear.n, plan);
  std::atomic<bool> finite = true;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < linear.n; ++row) {
    std::vector<float> weight(linear.k);
    if (!copy_permuted_row(linear, plan, row_order.empty() ? row : row_order[row], weight)) {
      finite = false;
      continue;
    }
    std::span<const float> values = weight;
    for (QuantizedLinear::Segment& segment : result.segments) {
      quantize_row(values.first(segment.channels), rule, row, segment);
      values = values.subspan(segment.channels);
    }
  }
  if (!finite) throw_not_finite(linear);
  return result;
}

}  // namespace micromix
