#include "micromix/model/generate.h"

#include <algorithm>
#include <cmath>

#include "micromix/base/error.h"

namespace micromix {

void generate(const Model& model, std::span<const int32_t> prompt, const GenerateOptions& options,
              const std::function<void(int32_t)>& on_token) {
  const ModelConfig& config = model.config();
  if (prompt.empty()) throw Error("prompt: found no tokens, expected at least one");
  // The last token is not run.
  const int64_t capacity = static_cast<int64_t>(prompt.size()) + options.max_new_tokens - 1;
  expect_context(config, capacity);

  Context context = model.make_context(capacity);
  Sampler sampler(options.sampling);
  std::span<const int32_t> next = prompt;
  int32_t token = 0;
  for (int64_t i = 0; i < options.max_new_tokens; ++i) {
    const std::span<const float> logits = model.next_logits(next, context);
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
      throw Error(fmt::format("{}: NaN or Inf in the logits of new token {}",
                              model.weights().store.model().string(), i));
    }
    token = sampler.sample(logits);
    const bool eos = std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), token) !=
                     config.eos_token_ids.end();
    if (eos && !options.ignore_eos) return;
    on_token(token);
    next = {&token, 1};
  }
}

}  // namespace micromix
