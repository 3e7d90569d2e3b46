// From a BF16 model folder and its statistics to a quantized folder, a layer at a time.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "micromix/base/progress.h"
#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/output_folder.h"
#include "micromix/quantize/options.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

// How much quantizing changed the outputs of a kind of linear ("q_proj"): ||Y' - Y|| / ||Y|| over
// the kept calibration rows, root mean square over the layers.
using OutputErrors = std::map<std::string, double>;

struct QuantizeReport {
  ModelSize before;
  ModelSize after;
  OutputErrors errors;                     // empty without statistics
  std::vector<std::string> not_divisible;  // linears left in BF16 because 32 does not divide K
  bool budget_exhausted = false;           // see ModelPlan
  std::optional<double> measured_kl;       // see ModelPlan
};

// Throws Error where quantize_model is bound to: where the model is quantized already, OUT cannot
// be used (see expect_usable_output), or its disk has no room for the narrowest plan. For callers
// with long work before.
void expect_quantizable(const ModelWeights& weights, const QuantizeOptions& options,
                        const std::filesystem::path& out, const OutputOptions& output);

// Writes the quantized folder OUT. STATISTICS may be null for uniform methods with weights rounded
// to nearest only; the budget allocation needs their sensitivities. Throws Error: nothing but
// OUT.partial is left behind then. PROGRESS goes over the layers once, and before that once for the
// budget allocation.
QuantizeReport quantize_model(const ModelWeights& weights, const std::string& model_hash,
                              const Statistics* statistics, const QuantizeOptions& options,
                              const std::filesystem::path& out, const OutputOptions& output,
                              const ProgressFunction& progress);

}  // namespace micromix
