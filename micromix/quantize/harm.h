// What quantizing a group of an input's channels does to the outputs of the linears that read it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/quantize/options.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

// One number a format, in the order of mx::kOperandFormats.
using FormatHarms = std::array<double, mx::kOperandFormats.size()>;

// For each group of CHANNEL_GROUP consecutive channels of ORDER (the last may be shorter) and each
// format: the sum over READERS of ||X W^T - Q(X) Q(W)^T||^2 on the kept calibration rows, with
// weights rounded to nearest and the errors of different blocks taken as independent. Threaded.
std::vector<FormatHarms> group_harms(const InputStatistics& input,
                                     std::span<const LinearWeights* const> readers,
                                     std::span<const int32_t> order,
                                     const QuantizeOptions& options);

}  // namespace micromix
