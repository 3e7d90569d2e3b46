// Perplexity, and how far a model is from a reference, over windows of text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "micromix/base/progress.h"
#include "micromix/model/model.h"

namespace micromix {

struct PerplexityOptions {
  int64_t window = 1024;
  std::optional<int64_t> max_windows;
};

struct PerplexityResult {
  double perplexity = 0;  // exp of the mean negative log-likelihood a prediction
  int64_t tokens = 0;     // the predictions: (window - 1) a window
  int64_t windows = 0;
  // With a reference model, over the same predictions:
  std::optional<double> kl;    // mean KL(reference || model), nats
  std::optional<double> top1;  // share with the same most likely token
};

// Non-overlapping windows of TOKENS, each run from an empty cache, the last partial one dropped.
// REFERENCE may be null; its vocabulary must be the model's. Throws Error where the text is shorter
// than a window, a window longer than the context, or a logit not finite.
PerplexityResult evaluate_perplexity(const Model& model, const Model* reference,
                                     std::span<const int32_t> tokens,
                                     const PerplexityOptions& options,
                                     const ProgressFunction& progress);

}  // namespace micromix
