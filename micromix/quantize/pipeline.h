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
#include "micromix/quantize/allocation.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

struct QuantizeOptions {
  AllocationOptions allocation;
  mx::ScaleRule scale_rule = mx::ScaleRule::kRceil;
  // What each weight format multiplies.
  std::map<mx::Format, ActivationFormat> activation_formats;
  // ECMAScript regular expressions searched for in module names ("model.layers.0.mlp.down_proj");
  // linears that match stay BF16. lm_head and embeddings always do.
  std::vector<std::string> keep;

  // Every option that shapes the result, as recorded in the checkpoint.
  Json to_json() const;
};

// "paper", "released", "uniform:e2m1".
std::string method_name(const AllocationOptions& options);

// Activations in the format of the weight they multiply.
std::map<mx::Format, ActivationFormat> same_activations();

// How much quantizing changed the outputs of a kind of linear ("q_proj"): ||Y' - Y|| / ||Y|| over
// the kept calibration rows, root mean square over the layers.
using OutputErrors = std::map<std::string, double>;

struct QuantizeReport {
  ModelSize before;
  ModelSize after;
  OutputErrors errors;                     // empty without statistics
  std::vector<std::string> not_divisible;  // linears left in BF16 because 32 does not divide K
};

// Writes the quantized folder OUT. STATISTICS may be null for uniform methods only. Throws Error:
// nothing but OUT.partial is left behind then.
QuantizeReport quantize_model(const ModelWeights& weights, const std::string& model_hash,
                              const Statistics* statistics, const QuantizeOptions& options,
                              const std::filesystem::path& out, const OutputOptions& output,
                              const ProgressFunction& progress);

}  // namespace micromix
