#include "micromix/compare/comparison.h"

#include <algorithm>

#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/checkpoint/output_folder.h"
#include "micromix/compare/fake_quantization.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/model/text.h"
#include "micromix/quantize/pipeline.h"
#include "micromix/quantize/sensitivity.h"

namespace micromix {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kGptqSuffix = "+gptq";
constexpr const char* kBf16 = "bf16";

// A method's name without its suffix.
std::string allocation_part(const std::string& method) {
  return method.ends_with(kGptqSuffix) ? method.substr(0, method.size() - kGptqSuffix.size())
                                       : method;
}

bool is_budget(const std::string& method) {
  return allocation_part(method) == "budget";
}

QuantizeOptions quantize_options(const ComparisonRun& run) {
  QuantizeOptions options;
  options.allocation = *parse_method(allocation_part(run.method));
  options.allocation.bits = run.target_bits.value_or(0);
  if (run.method.ends_with(kGptqSuffix)) options.weights = WeightRounding::kGptq;
  options.scale_rule = default_scale_rule(options.allocation.method);
  options.activation_formats = same_activations();
  return options;
}

// What there is to run, unmeasured.
std::vector<ComparisonRun> planned_runs(const ComparisonOptions& options) {
  std::vector<ComparisonRun> runs;
  for (const std::string& method : options.methods) {
    ComparisonRun run;
    run.method = method;
    if (!is_budget(method)) {
      runs.push_back(run);
      continue;
    }
    for (double bits : options.bits) {
      run.target_bits = bits;
      runs.push_back(run);
    }
  }
  return runs;
}

Json describe_inputs(const fs::path& model, const fs::path& data, const fs::path& text,
                     const ComparisonOptions& options, int64_t samples) {
  const auto name = [](const fs::path& path) {
    const fs::path clean = fs::weakly_canonical(path);
    return clean.filename().string();
  };
  return {{"model", name(model)},
          {"model_hash", model_hash(model)},
          {"calibration_text", name(data)},
          {"calibration_hash", file_hash(data)},
          {"samples", samples},
          {"length", options.calibration.length},
          {"evaluation_text", name(text)},
          {"evaluation_hash", file_hash(text)},
          {"window", options.evaluation.window},
          {"max_windows", options.evaluation.max_windows.value_or(0)}};
}

class Comparer {
 public:
  Comparer(const fs::path& model, const fs::path& data, const ComparisonOptions& options,
           const fs::path& folder)
      : path_(model),
        data_(data),
        options_(options),
        folder_(folder),
        reference_(model, kernels::cpu_backend()),
        tokenizer_(load_tokenizer(model, reference_.config())),
        calibration_tokens_(tokenize_file(*tokenizer_, reference_.config(), data)) {
    if (reference_.config().quantization) {
      throw Error(
          fmt::format("{}: quantized already; compare needs the BF16 model", model.string()));
    }
  }

  const Model& reference() const { return reference_; }

  int64_t samples() const {
    return calibration_samples(static_cast<int64_t>(calibration_tokens_.size()),
                               options_.calibration);
  }

  std::vector<TokenId> tokens(const fs::path& text) const {
    return tokenize_file(*tokenizer_, reference_.config(), text);
  }

  // Measures RUN on TOKENS.
  void measure_run(std::span<const TokenId> tokens, const ProgressFunction& progress,
                   ComparisonRun& run) {
    if (run.method == kBf16) {
      run.average_bits = 16;
      run.bits_per_parameter = measure(reference_.weights()).bits_per_parameter;
      evaluate(reference_, tokens, progress, run);
      return;
    }
    if (const auto baseline = parse_baseline(run.method)) {
      run.average_bits = bits_per_value(*baseline);
      run.bits_per_parameter = bits_per_parameter(run.average_bits);
      const auto backend = fake_quantization_backend(*baseline, kernels::reference_backend());
      evaluate(Model(path_, *backend, kernels::reference_backend()), tokens, progress, run);
      return;
    }
    const fs::path out = folder_ / "model";
    const QuantizeOptions options = quantize_options(run);
    quantize_model(reference_.weights(), hash(), &statistics(options), options, out,
                   {.force = true}, nullptr);
    const Model model(out, kernels::cpu_backend());
    const ModelSize size = measure(model.weights());
    run.average_bits = size.average_bits;
    run.bits_per_parameter = size.bits_per_parameter;
    for (const LayerWeights& layer : model.weights().layers) {
      auto& inputs = run.allocation.emplace_back();
      for (LinearRole role : kLinearRoles) {
        inputs[static_cast<size_t>(input_of(role))] = layer[role].plan.channels;
      }
    }
    evaluate(model, tokens, progress, run);
    fs::remove_all(out);
  }

 private:
  // The whole model's, were its decoder's linears stored at BITS a value.
  double bits_per_parameter(double bits) const {
    const ModelSize size = measure(reference_.weights());
    double elements = 0;
    for (const LayerWeights& layer : reference_.weights().layers) {
      for (const LinearWeights& linear : layer.linears) {
        elements += static_cast<double>(linear.n) * static_cast<double>(linear.k);
      }
    }
    return size.bits_per_parameter - elements * (16 - bits) / static_cast<double>(size.parameters);
  }

  void evaluate(const Model& model, std::span<const TokenId> tokens,
                const ProgressFunction& progress, ComparisonRun& run) const {
    const PerplexityResult result =
        evaluate_perplexity(model, &reference_, tokens, options_.evaluation, progress);
    run.perplexity = result.perplexity;
    run.kl = *result.kl;
    run.top1 = *result.top1;
  }

  const std::string& hash() {
    if (hash_.empty()) hash_ = model_hash(path_);
    return hash_;
  }

  // Made when first needed, and kept in the folder for a run that continues this one.
  const Statistics& statistics(const QuantizeOptions& options) {
    const fs::path file = folder_ / "stats";
    if (!statistics_ && fs::exists(file)) {
      statistics_ = load_statistics(file, reference_.config(), hash());
    }
    const bool needs_kl = options.allocation.method == AllocationMethod::kBudget;
    bool changed = false;
    if (!statistics_) {
      statistics_ =
          calibrate(reference_.weights(), calibration_tokens_, options_.calibration, nullptr);
      statistics_->text_hash = file_hash(data_);
      statistics_->model_hash = hash();
      changed = true;
    }
    if (needs_kl && !has_sensitivities(*statistics_)) {
      measure_sensitivities(reference_.weights(), *statistics_, nullptr);
      changed = true;
    }
    if (changed) save_statistics(file, *statistics_);
    return *statistics_;
  }

  fs::path path_;
  fs::path data_;
  const ComparisonOptions& options_;
  fs::path folder_;
  Model reference_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<TokenId> calibration_tokens_;
  std::string hash_;
  std::optional<Statistics> statistics_;
};

}  // namespace

std::vector<std::string> default_methods() {
  return {kBf16,  "uniform:e2m1", "uniform:e2m3", "uniform:e3m2", "uniform:e4m3", "nvfp4",
          "int4", "int8",         "paper",        "released",     "budget",       "budget+gptq"};
}

std::optional<std::string> method_error(const std::string& method) {
  if (method == kBf16 || parse_baseline(method) || parse_method(allocation_part(method))) {
    return std::nullopt;
  }
  return fmt::format("found '{}', expected one of {}", method, fmt::join(default_methods(), ", "));
}

Json to_json(const Comparison& comparison) {
  Json runs = Json::array();
  for (const ComparisonRun& run : comparison.runs) {
    Json json = {{"method", run.method},
                 {"average_bits", run.average_bits},
                 {"bits_per_parameter", run.bits_per_parameter},
                 {"perplexity", run.perplexity},
                 {"kl", run.kl},
                 {"top1", run.top1},
                 {"allocation", run.allocation}};
    if (run.target_bits) json["target_bits"] = *run.target_bits;
    runs.push_back(std::move(json));
  }
  return {{"inputs", comparison.inputs}, {"runs", runs}};
}

Comparison parse_comparison(const Json& json, const std::string& file) {
  const JsonObject root(json, file);
  Comparison comparison;
  comparison.inputs = root.at("inputs");
  const Json& runs = root.at("runs");
  if (!runs.is_array()) root.fail("runs", describe(runs), "an array");
  for (size_t i = 0; i < runs.size(); ++i) {
    const JsonObject entry(runs[i], file, fmt::format("runs[{}]", i));
    ComparisonRun run;
    run.method = entry.string("method");
    if (entry.has("target_bits")) run.target_bits = entry.number("target_bits");
    run.average_bits = entry.number("average_bits");
    run.bits_per_parameter = entry.number("bits_per_parameter");
    run.perplexity = entry.number("perplexity");
    run.kl = entry.number("kl");
    run.top1 = entry.number("top1");
    try {
      entry.at("allocation").get_to(run.allocation);
    } catch (const Json::exception&) {
      entry.fail("allocation", "something else", "channels per layer, input and format");
    }
    comparison.runs.push_back(std::move(run));
  }
  return comparison;
}

Comparison compare(const fs::path& model, const fs::path& data, const fs::path& text,
                   const ComparisonOptions& options, const fs::path& folder,
                   const std::function<void(const ComparisonRun&)>& on_run,
                   const ProgressFunction& progress) {
  fs::create_directories(folder);
  const fs::path file = folder / "results.json";
  Comparer comparer(model, data, options, folder);
  Comparison comparison;
  comparison.inputs = describe_inputs(model, data, text, options, comparer.samples());
  std::vector<ComparisonRun> known;
  if (fs::exists(file)) {
    Comparison earlier = parse_comparison(read_json(file), file.string());
    if (earlier.inputs != comparison.inputs) {
      throw_invalid(file.string(), "inputs", "results of another model, text or option",
                    "another folder for -o");
    }
    known = std::move(earlier.runs);
  }
  const std::vector<TokenId> tokens = comparer.tokens(text);
  for (ComparisonRun& run : planned_runs(options)) {
    const auto done = std::ranges::find_if(known, [&](const ComparisonRun& each) {
      return each.method == run.method && each.target_bits == run.target_bits;
    });
    if (done != known.end()) {
      run = *done;
    } else {
      comparer.measure_run(tokens, progress, run);
    }
    comparison.runs.push_back(run);
    // Runs of an earlier call that come later in this one stay in the file.
    Comparison all = comparison;
    for (const ComparisonRun& each : known) {
      const bool listed = std::ranges::any_of(comparison.runs, [&](const ComparisonRun& other) {
        return each.method == other.method && each.target_bits == other.target_bits;
      });
      if (!listed) all.runs.push_back(each);
    }
    write_file(file, to_json(all).dump(1) + "\n");
    on_run(run);
  }
  return comparison;
}

}  // namespace micromix
