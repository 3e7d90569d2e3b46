// Continuing a prompt.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "micromix/model/model.h"
#include "micromix/model/sampling.h"

namespace micromix {

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  SamplingOptions sampling;
};

// Calls ON_TOKEN with each new token as it is chosen; an EOS id of the model ends the text and is
// not passed on, unless ignore_eos. Throws Error where the prompt is empty, or prompt and new
// tokens but the last, which is not run, are longer than the model's context, and where a logit is
// not finite.
void generate(const Model& model, std::span<const int32_t> prompt, const GenerateOptions& options,
              const std::function<void(int32_t)>& on_token);

}  // namespace micromix
