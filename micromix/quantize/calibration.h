// Calibration: run the unquantized model over sample text and gather statistics of every linear
// input. One layer is resident at a time; all samples' hidden states stay in memory.
#pragma once

#include <cstdint>
#include <span>

#include "micromix/base/progress.h"
#include "micromix/checkpoint/model_weights.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

struct CalibrationOptions {
  int64_t samples = 32;
  int64_t length = 2048;
};

// Windows that TOKENS tokens give: options.samples, or fewer where the text is shorter. Throws
// Error where it does not fill one.
int64_t calibration_samples(int64_t tokens, const CalibrationOptions& options);

// Statistics over the first samples x length tokens of TOKENS, consecutive. The hashes are left to
// the caller. Throws Error where the model is quantized already, the text shorter than one sample,
// a sample longer than the model's context, or an activation not finite.
Statistics calibrate(const ModelWeights& weights, std::span<const int32_t> tokens,
                     const CalibrationOptions& options, const ProgressFunction& progress);

}  // namespace micromix
