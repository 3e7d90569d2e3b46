#include "micromix/checkpoint/shard_tensors.h"

#include <algorithm>
#include <cstring>

#include "micromix/base/error.h"
#include "micromix/mx/bfloat16.h"

namespace micromix {
namespace {

// BYTES, those of TENSOR or made from it, are BF16.
void expect_finite(const TensorView& tensor, std::span<const std::byte> bytes) {
  bool finite = true;
  for (size_t i = 0; i < bytes.size(); i += sizeof(mx::BFloat16)) {
    mx::BFloat16 value;
    std::memcpy(&value, &bytes[i], sizeof value);
    finite &= mx::is_finite(value);
  }
  if (!finite) {
    throw_invalid(tensor.file->path().string(), tensor.name, "NaN or Inf in BF16",
                  "finite weights");
  }
}

}  // namespace

void ShardTensors::add_bfloat16(const TensorView* tensor, std::span<const int32_t> row_order) {
  if (tensor == nullptr) return;
  if (tensor->dtype == DType::kBF16 && row_order.empty()) {
    expect_finite(*tensor, tensor->bytes);
    tensor->release();  // until it is written
    tensors_.push_back({tensor->name, DType::kBF16, tensor->shape, tensor->bytes, tensor});
    return;
  }
  const int64_t rows = tensor->shape[0];
  const int64_t row_bytes = static_cast<int64_t>(tensor->bytes.size()) / rows;
  std::vector<mx::BFloat16> values;
  for (int64_t i = 0; i < rows; ++i) {
    TensorView row = *tensor;
    row.bytes =
        tensor->bytes.subspan((row_order.empty() ? i : row_order[i]) * row_bytes, row_bytes);
    for (float value : to_floats(row)) values.push_back(mx::to_bfloat16(value));
  }
  expect_finite(*tensor, std::as_bytes(std::span(values)));
  add(tensor->name, DType::kBF16, tensor->shape, values);
}

std::vector<TensorData> ShardTensors::sorted() const {
  std::vector<TensorData> tensors = tensors_;
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorData& a, const TensorData& b) {
    return size_of(a.dtype) > size_of(b.dtype);
  });
  return tensors;
}

ShardTensors outer_tensors(const ModelWeights& weights) {
  ShardTensors shard;
  shard.add_bfloat16(weights.embedding);
  shard.add_bfloat16(weights.final_norm);
  return shard;
}

void add_norms(const LayerWeights& layer, ShardTensors& shard) {
  for (const TensorView* norm :
       {layer.attention_norm, layer.mlp_norm, layer.q_norm, layer.k_norm}) {
    shard.add_bfloat16(norm);
  }
}

}  // namespace micromix
