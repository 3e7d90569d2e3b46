// A quantized folder back to a plain BF16 one.
#pragma once

#include <filesystem>

#include "micromix/base/progress.h"
#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/output_folder.h"

namespace micromix {

// Writes OUT as a Hugging Face folder without quantization: every weight's dequantized value
// rounded to BF16 (exact but for scales at the edge of BF16's range), channels and rows in their
// original order, a layer at a time. Throws Error where the model is not quantized.
void export_bfloat16(const ModelWeights& weights, const std::filesystem::path& out,
                     const OutputOptions& output, const ProgressFunction& progress);

}  // namespace micromix
