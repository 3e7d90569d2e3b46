// A decoder-only language model of the Llama family, BF16 or quantized, run on a backend.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/kernels/linear.h"
#include "micromix/model/context.h"
#include "micromix/model/decoder_layer.h"
#include "micromix/model/output_head.h"

namespace micromix {

// OUT [ids.size(), hidden_size] = rows of the embedding as FP32.
void embed(const ModelWeights& weights, std::span<const int32_t> ids, float* out);
std::vector<float> embed(const ModelWeights& weights, std::span<const int32_t> ids);

// The longest context in positions: the model's rope's, or its sliding window's (whose attention is
// not implemented, so that a longer one would be wrong rather than short).
int64_t max_context(const ModelConfig& config);

// Throws Error where a context of LENGTH positions is longer than that.
void expect_context(const ModelConfig& config, int64_t length);

class Model {
 public:
  // Throws Error (see ModelWeights).
  explicit Model(const std::filesystem::path& path,
                 const kernels::Backend& backend = kernels::reference_backend())
      : Model(path, backend, backend) {}
  // Runs the final norm and lm_head on HEAD, which must read the hidden states of LAYERS: the same
  // one, or both on the host.
  Model(const std::filesystem::path& path, const kernels::Backend& layers,
        const kernels::Backend& head);
  Model(const Model&) = delete;  // layers refer to the config
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return weights_.config; }
  const ModelWeights& weights() const { return weights_; }

  // Room for CAPACITY positions.
  Context make_context(int64_t capacity) const;

  // Runs tokens at positions context.length()... and leaves their last hidden states, before the
  // final norm, in context.hidden [ids.size(), hidden_size]. Ids must lie in the vocabulary, and
  // CONTEXT have room for them. Any number of tokens is run in chunks.
  void forward(std::span<const int32_t> ids, Context& context) const;

  // Logits [count, vocab_size] of COUNT tokens of the last forward() from the FIRST on; in CONTEXT
  // until the next call.
  std::span<const float> logits(int64_t first, int64_t count, Context& context) const;

  // Runs tokens and returns the logits [vocab_size] that follow the last.
  std::span<const float> next_logits(std::span<const int32_t> ids, Context& context) const {
    forward(ids, context);
    return logits(static_cast<int64_t>(ids.size()) - 1, 1, context);
  }

 private:
  ModelWeights weights_;
  const kernels::Backend& backend_;
  const kernels::Backend& head_backend_;
  std::vector<DecoderLayer> layers_;
  OutputHead head_;
};

}  // namespace micromix
