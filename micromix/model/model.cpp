#include "micromix/model/model.h"

#include <algorithm>
#include <cassert>

#include "micromix/base/error.h"
#include "micromix/mx/bfloat16.h"

namespace micromix {

std::vector<float> embed(const ModelWeights& weights, std::span<const int32_t> ids) {
  const int64_t hidden = weights.config.hidden_size;
  TensorView row = *weights.embedding;
  const int64_t row_bytes = hidden * size_of(row.dtype);
  std::vector<float> out;
  out.reserve(ids.size() * hidden);
  for (int32_t id : ids) {
    assert(id >= 0 && id < weights.config.vocab_size);
    row.bytes = weights.embedding->bytes.subspan(id * row_bytes, row_bytes);
    const std::vector<float> values = to_floats(row);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

int64_t max_context(const ModelConfig& config) {
  const int64_t positions = config.max_position_embeddings;
  return std::min(positions, config.sliding_window.value_or(positions));
}

void expect_context(const ModelConfig& config, int64_t length) {
  if (length > config.max_position_embeddings) {
    throw Error(
        fmt::format("a context of {} tokens exceeds the model's max_position_embeddings of {}",
                    length, config.max_position_embeddings));
  }
  if (config.sliding_window && length > *config.sliding_window) {
    throw Error(fmt::format(
        "a context of {} tokens exceeds the model's sliding_window of {}, which is not implemented",
        length, *config.sliding_window));
  }
}

Model::Model(const std::filesystem::path& path, const kernels::Backend& layers,
             const kernels::Backend& head)
    : weights_(path), head_(weights_, head) {
  layers_.reserve(weights_.layers.size());
  for (const LayerWeights& layer : weights_.layers) {
    layers_.emplace_back(layer, weights_.config, layers);
    layer.release();  // a backend that repacks has its own copy now
  }
}

std::vector<float> Model::forward(std::span<const int32_t> ids, KvCache& cache) const {
  std::vector<float> hidden = embed(weights_, ids);
  const int64_t m = static_cast<int64_t>(ids.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].forward(m, hidden.data(), cache.layers[i]);
  }
  return hidden;
}

}  // namespace micromix
