// The tensors of one shard while they are put together: some views into other files, some made
// here.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/safetensors.h"

namespace micromix {

class ShardTensors {
 public:
  // VALUES are kept here.
  template <typename T>
  void add(std::string name, DType dtype, std::vector<int64_t> shape,
           const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    owned_.emplace_back(bytes.begin(), bytes.end());
    tensors_.push_back({std::move(name), dtype, std::move(shape), owned_.back(), nullptr});
  }

  // A float tensor as BF16: as it lies in its file where it is BF16 and ROW_ORDER is empty; else
  // converted (round to nearest even), row i of the result being row ROW_ORDER[i]. Null adds
  // nothing. Throws Error where a value is NaN or Inf as BF16.
  void add_bfloat16(const TensorView* tensor, std::span<const int32_t> row_order = {});

  // Largest elements first, so that every tensor of the file is aligned.
  std::vector<TensorData> sorted() const;

 private:
  std::deque<std::vector<std::byte>> owned_;  // a deque: spans into it stay valid
  std::vector<TensorData> tensors_;
};

// The tensors of a model outside its layers but for the lm_head: embedding and final norm.
ShardTensors outer_tensors(const ModelWeights& weights);

// Norms of one layer.
void add_norms(const LayerWeights& layer, ShardTensors& shard);

}  // namespace micromix
