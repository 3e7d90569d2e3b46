// Distributions over the vocabulary, given as logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace micromix {

// log of the sum of exponentials.
inline double log_sum_exp(const float* logits, int64_t count) {
  const float largest = *std::max_element(logits, logits + count);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(logits[i] - largest);
  return std::log(sum) + largest;
}

// KL(softmax(reference) || softmax(logits)) in nats, given both norms (log_sum_exp).
inline double kl_divergence(const float* reference, double reference_norm, const float* logits,
                            double norm, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double log_p = reference[i] - reference_norm;
    sum += std::exp(static_cast<float>(log_p)) * (log_p - (logits[i] - norm));
  }
  return sum;
}

}  // namespace micromix
