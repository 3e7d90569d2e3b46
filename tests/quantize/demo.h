// Statistics and options for tests on small models.
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/quantize/calibration.h"
#include "micromix/quantize/options.h"
#include "tests/testing.h"

namespace micromix::testing {

inline std::vector<int32_t> some_tokens(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  uint32_t state = 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((state >> 8) % vocab));
  }
  return ids;
}

inline Statistics statistics_of(const ModelWeights& weights, int64_t samples = 2,
                                int64_t length = 64) {
  Statistics statistics =
      calibrate(weights, some_tokens(samples * length, weights.config.vocab_size),
                {.samples = samples, .length = length}, nullptr);
  statistics.text_hash = "xxh3:0";
  statistics.model_hash = "xxh3:1";
  return statistics;
}

inline QuantizeOptions options_for(AllocationMethod method) {
  QuantizeOptions options;
  options.allocation.method = method;
  options.activation_formats = same_activations();
  return options;
}

}  // namespace micromix::testing
