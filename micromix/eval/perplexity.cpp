#include "micromix/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "micromix/base/error.h"
#include "micromix/model/distribution.h"

namespace micromix {
namespace {

// Predictions whose logits are held at a time: 64 MB for a vocabulary of 128k.
constexpr int64_t kLogitRows = 128;

struct Sums {
  double negative_log_likelihood = 0;
  double kl = 0;
  int64_t same_top = 0;
};

// Rows LOGITS and (or null) REFERENCE [m, vocab] that predict TARGETS.
Sums score(int64_t m, int64_t vocab, const float* logits, const float* reference,
           const int32_t* targets) {
  std::vector<Sums> rows(m);  // summed in order afterwards: the same for any number of threads
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    const float* y = logits + row * vocab;
    const double norm = log_sum_exp(y, vocab);
    rows[row].negative_log_likelihood = norm - y[targets[row]];
    if (reference == nullptr) continue;
    const float* base = reference + row * vocab;
    rows[row].kl = kl_divergence(base, log_sum_exp(base, vocab), y, norm, vocab);
    rows[row].same_top =
        std::max_element(base, base + vocab) - base == std::max_element(y, y + vocab) - y;
  }
  Sums total;
  for (const Sums& row : rows) {
    total.negative_log_likelihood += row.negative_log_likelihood;
    total.kl += row.kl;
    total.same_top += row.same_top;
  }
  return total;
}

// SUM is one of what MODEL's logits of WINDOW gave.
void expect_finite(double sum, const Model& model, int64_t window) {
  if (std::isfinite(sum)) return;
  throw Error(fmt::format("{}: NaN or Inf in the logits of window {}",
                          model.weights().store.model().string(), window));
}

}  // namespace

PerplexityResult evaluate_perplexity(const Model& model, const Model* reference,
                                     std::span<const int32_t> tokens,
                                     const PerplexityOptions& options,
                                     const ProgressFunction& progress) {
  const ModelConfig& config = model.config();
  expect_context(config, options.window);
  if (reference != nullptr) {
    expect_context(reference->config(), options.window);
    if (reference->config().vocab_size != config.vocab_size) {
      throw_invalid(reference->weights().store.model().string(), "vocab_size",
                    fmt::format("{}", reference->config().vocab_size),
                    fmt::format("{}, the evaluated model's", config.vocab_size));
    }
  }
  int64_t windows = static_cast<int64_t>(tokens.size()) / options.window;
  if (windows == 0) {
    throw Error(fmt::format("the text has {} tokens, under one window of {}", tokens.size(),
                            options.window));
  }
  if (options.max_windows) windows = std::min(windows, *options.max_windows);

  const int64_t predictions = options.window - 1;
  Context context = model.make_context(options.window);
  std::optional<Context> reference_context;
  if (reference != nullptr) reference_context = reference->make_context(options.window);
  Sums sums;
  for (int64_t window = 0; window < windows; ++window) {
    const auto ids = tokens.subspan(window * options.window, options.window);
    context.clear();
    model.forward(ids, context);
    if (reference != nullptr) {
      reference_context->clear();
      reference->forward(ids, *reference_context);
    }
    for (int64_t row = 0; row < predictions; row += kLogitRows) {
      const int64_t m = std::min(kLogitRows, predictions - row);
      const float* const logits = model.logits(row, m, context).data();
      const float* base = nullptr;
      if (reference != nullptr) base = reference->logits(row, m, *reference_context).data();
      const Sums part = score(m, config.vocab_size, logits, base, ids.data() + row + 1);
      sums.negative_log_likelihood += part.negative_log_likelihood;
      sums.kl += part.kl;
      sums.same_top += part.same_top;
    }
    expect_finite(sums.negative_log_likelihood, model, window);
    if (reference != nullptr) expect_finite(sums.kl, *reference, window);
    report(progress, window + 1, windows);
  }

  PerplexityResult result;
  result.windows = windows;
  result.tokens = windows * predictions;
  const double count = static_cast<double>(result.tokens);
  result.perplexity = std::exp(sums.negative_log_likelihood / count);
  if (reference != nullptr) {
    result.kl = sums.kl / count;
    result.top1 = static_cast<double>(sums.same_top) / count;
  }
  return result;
}

}  // namespace micromix
