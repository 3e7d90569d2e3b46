#include "micromix/model/model.h"

#include <algorithm>
#include <cassert>

#include "micromix/base/error.h"
#include "micromix/kernels/reference/dense.h"

namespace micromix {

namespace {

// Rows that pass the layers together: enough that expanding weights does not show, few enough that
// buffers stay small whatever the prompt.
constexpr int64_t kChunk = 512;

}  // namespace

void embed(const ModelWeights& weights, std::span<const int32_t> ids, float* out) {
  const kernels::DenseWeight embedding = dense_view(*weights.embedding);
  for (int32_t id : ids) {
    assert(id >= 0 && id < weights.config.vocab_size);
    kernels::decode_dense(embedding, id, 0, embedding.k, out);
    out += embedding.k;
  }
}

std::vector<float> embed(const ModelWeights& weights, std::span<const int32_t> ids) {
  std::vector<float> out(ids.size() * weights.config.hidden_size);
  embed(weights, ids, out.data());
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
    : weights_(path), backend_(layers), head_backend_(head), head_(weights_, head) {
  layers_.reserve(weights_.layers.size());
  for (const LayerWeights& layer : weights_.layers) {
    layers_.emplace_back(layer, weights_.config, layers);
    layer.release();  // a backend that repacks has its own copy now
  }
}

Context Model::make_context(int64_t capacity) const {
  Context context{{}, Workspace(backend_), head_backend_.make_input(), {}, {}};
  for (size_t i = 0; i < layers_.size(); ++i) {
    context.layers.push_back(backend_.make_key_values(attention_shape(config()), capacity));
  }
  return context;
}

std::span<const float> Model::forward(std::span<const int32_t> ids, Context& context) const {
  const int64_t size = config().hidden_size;
  const int64_t m = static_cast<int64_t>(ids.size());
  float* const hidden = context.hidden.resize(m * size);
  embed(weights_, ids, hidden);
  for (int64_t row = 0; row < m; row += kChunk) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].forward(std::min(kChunk, m - row), hidden + row * size, *context.layers[i],
                         context.workspace);
    }
  }
  return {hidden, static_cast<size_t>(m * size)};
}

std::span<const float> Model::logits(int64_t m, const float* hidden, Context& context) const {
  const int64_t size = m * config().vocab_size;
  float* const out = context.logits.resize(size);
  head_.logits(m, hidden, *context.head_input, out);
  return {out, static_cast<size_t>(size)};
}

}  // namespace micromix
