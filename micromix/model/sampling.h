// Choosing the next token.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace micromix {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // keep the k most likely; 0: all
  double top_p = 1;        // then the fewest most likely whose probabilities reach p
  uint64_t seed = 0;
};

// Temperature, then top-k, then top-p, in the order of Hugging Face's generate.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

  // An index of LOGITS. Of equal most likely ones, greedy takes the first.
  int32_t sample(std::span<const float> logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
};

}  // namespace micromix
