// Reading the `quantization_config` of a folder that micromix wrote.
#pragma once

#include "micromix/base/json.h"
#include "micromix/checkpoint/config.h"

namespace micromix {

// Throws Error naming file and field, also for another quantization method and a newer version.
QuantizationConfig parse_quantization(const JsonObject& object);

}  // namespace micromix
