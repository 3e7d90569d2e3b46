// Many ways to quantize one model, measured alike: each method at its bits against the BF16 model.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "micromix/base/json.h"
#include "micromix/eval/perplexity.h"
#include "micromix/quantize/calibration.h"

namespace micromix {

struct ComparisonOptions {
  // "bf16", a baseline (fake_quantization.h), or a method of micromix quantize with or without
  // "+gptq"; "budget" and "budget+gptq" run once for each of BITS.
  std::vector<std::string> methods;
  std::vector<double> bits;
  CalibrationOptions calibration;
  PerplexityOptions evaluation;
};

// All of them, in the order of the report.
std::vector<std::string> default_methods();

// What is wrong with a method's name; none where nothing is.
std::optional<std::string> method_error(const std::string& method);

struct ComparisonRun {
  std::string method;
  std::optional<double> target_bits;  // of a budget
  double average_bits = 0;            // of the quantized linears
  double bits_per_parameter = 0;  // of the whole model's files; of baselines as if they were stored
  double perplexity = 0;
  double kl = 0;    // KL(BF16 || model), nats a prediction
  double top1 = 0;  // share of predictions with the same most likely token
  // Channels per operand format of every input, by layer and InputRole; empty outside MX.
  std::vector<std::array<std::array<int64_t, mx::kOperandFormats.size()>, kInputRoles.size()>>
      allocation;
};

struct Comparison {
  Json inputs;  // what was compared: names and hashes of model and texts, options, predictions
  std::vector<ComparisonRun> runs;
};

// results.json.
Json to_json(const Comparison& comparison);
// Throws Error naming FILE and field.
Comparison parse_comparison(const Json& json, const std::string& file);

// Runs the methods on MODEL, calibrated on the text DATA, evaluated on TEXT, and keeps results.json
// in FOLDER up to date: runs that stand there already, from the same inputs, are not repeated.
// Calls ON_RUN for every run in order, PROGRESS within a run. Throws Error, also where FOLDER holds
// results of other inputs.
Comparison compare(const std::filesystem::path& model, const std::filesystem::path& data,
                   const std::filesystem::path& text, const ComparisonOptions& options,
                   const std::filesystem::path& folder,
                   const std::function<void(const ComparisonRun&)>& on_run,
                   const ProgressFunction& progress);

}  // namespace micromix
