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
  Context context{{},
                  Workspace(backend_),
                  backend_.make_buffer(kernels::BufferType::kFloat),
                  head_backend_.make_input(),
                  head_backend_.make_buffer(kernels::BufferType::kFloat),
                  {},
                  {}};
  for (size_t i = 0; i < layers_.size(); ++i) {
    context.layers.push_back(backend_.make_key_values(attention_shape(config()), capacity));
  }
  return context;
}

void Model::forward(std::span<const int32_t> ids, Context& context) const {
  const int64_t m = static_cast<int64_t>(ids.size());
  context.hidden->resize(m, config().hidden_size);
  for (int64_t row = 0; row < m; row += kChunk) {
    const kernels::Rows hidden(*context.hidden, row, std::min(kChunk, m - row));
    context.embeddings.resize(hidden.count * config().hidden_size);
    embed(weights_, ids.subspan(row, hidden.count), context.embeddings.data());
    backend_.write(hidden, context.embeddings.data());
    const kernels::Buffer* addend = nullptr;
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].forward(hidden, addend, *context.layers[i], context.workspace);
      addend = context.workspace.output.get();
    }
    if (addend != nullptr) backend_.add(hidden, *addend);
  }
}

std::span<const float> Model::logits(int64_t first, int64_t count, Context& context) const {
  head_.logits({*context.hidden, first, count}, *context.head_input, *context.head_output);
  context.logits.resize(count * config().vocab_size);
  head_backend_.read(*context.head_output, context.logits.data());
  return context.logits;
}

}  // namespace micromix
