// micromix quantize: a BF16 model folder to a mixed one.
#include <memory>
#include <optional>
#include <regex>
#include <set>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/base/error.h"
#include "micromix/checkpoint/output_folder.h"
#include "micromix/quantize/pipeline.h"
#include "micromix/quantize/sensitivity.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string out;
  std::string data;
  std::string stats;
  std::string method = "paper";
  std::string fp6 = "e3m2";
  std::string scale_rule;
  std::string weights = "rtn";
  double bits = 0;
  std::optional<double> max_kl;
  int64_t channel_group = 32;
  std::string activations = "same";
  std::string lm_head = "bf16";
  std::vector<std::string> keep;
  CalibrationOptions calibration;
  OutputOptions output;
};

std::string pattern_error(const std::string& text) {
  try {
    const std::regex parsed(text);
  } catch (const std::regex_error& error) {
    return fmt::format("found '{}' ({}), expected a regular expression", text, error.what());
  }
  return "";
}

mx::Format operand_format(const std::string& option, const std::string& text) {
  const auto format = mx::parse_format(text, mx::kOperandFormats);
  if (!format) {
    throw CLI::ValidationError(option,
                               fmt::format("found '{}', expected e2m1, e2m3, e3m2 or e4m3", text));
  }
  return *format;
}

ActivationFormat activation_format(const std::string& text) {
  if (text == "bf16") return std::nullopt;
  return operand_format("--activations", text);
}

// "same", one format for all, or "e2m1=e4m3,…" over the default.
std::map<mx::Format, ActivationFormat> parse_activations(const std::string& text) {
  std::map<mx::Format, ActivationFormat> formats = same_activations();
  if (text == "same") return formats;
  if (text.find('=') == std::string::npos) {
    for (auto& [weight, activation] : formats) activation = activation_format(text);
    return formats;
  }
  std::vector<std::string> pairs = CLI::detail::split(text, ',');
  if (text.ends_with(',')) pairs.emplace_back();  // which split leaves out
  std::set<mx::Format> given;
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos) {
      throw CLI::ValidationError("--activations",
                                 fmt::format("found '{}', expected WEIGHT=ACTIVATION", pair));
    }
    const mx::Format weight = operand_format("--activations", pair.substr(0, equals));
    if (!given.insert(weight).second) {
      throw CLI::ValidationError(
          "--activations",
          fmt::format("found {} twice, expected each weight format once", mx::name(weight)));
    }
    formats[weight] = activation_format(pair.substr(equals + 1));
  }
  return formats;
}

AllocationOptions allocation_options(const Options& options) {
  const auto method = parse_method(options.method);
  if (!method) {
    throw CLI::ValidationError(
        "--method", fmt::format("found '{}', expected paper, released, budget or uniform:FORMAT",
                                options.method));
  }
  AllocationOptions allocation = *method;
  allocation.fp6 = operand_format("--fp6", options.fp6);
  allocation.channel_group = options.channel_group;
  allocation.bits = options.bits;
  allocation.max_kl = options.max_kl;
  const bool has_target = options.bits != 0 || options.max_kl;
  const bool budget = allocation.method == AllocationMethod::kBudget;
  if (budget && !has_target) throw CLI::RequiredError("--bits or --max-kl");
  if (!budget && has_target) {
    throw CLI::ValidationError(options.max_kl ? "--max-kl" : "--bits", "needs --method budget");
  }
  return allocation;
}

QuantizeOptions parse(const Options& options) {
  QuantizeOptions result;
  result.allocation = allocation_options(options);
  result.scale_rule = options.scale_rule.empty()
                          ? default_scale_rule(result.allocation.method)
                          : *mx::parse_scale_rule(options.scale_rule);  // checked by the option
  if (options.weights == "gptq") result.weights = WeightRounding::kGptq;
  result.activation_formats = parse_activations(options.activations);
  result.lm_head = mx::parse_format(options.lm_head, mx::kOperandFormats);  // none: bf16
  result.keep = options.keep;
  const bool needs_statistics = result.allocation.method != AllocationMethod::kUniform ||
                                result.weights == WeightRounding::kGptq;
  if (needs_statistics && options.data.empty() && options.stats.empty()) {
    throw CLI::RequiredError("--data or --stats");
  }
  return result;
}

void print_report(const std::string& out, const QuantizeReport& report) {
  for (const std::string& module : report.not_divisible) {
    fmt::print("{} stays BF16: its input size is not a multiple of 32\n", module);
  }
  for (const auto& [role, error] : report.errors) {
    fmt::print("relative output error  {:<10} {:.4f}\n", role, error);
  }
  fmt::print("average bits           {:.4f} (whole file: {:.4f} bits a parameter)\n",
             report.after.average_bits, report.after.bits_per_parameter);
  if (report.after.layer_bits > 0 && report.after.layer_bits != report.after.average_bits) {
    fmt::print("  without the lm_head  {:.4f}\n", report.after.layer_bits);
  }
  if (report.budget_exhausted) {
    fmt::print("the budget is not spent: no channel group gains from more bits\n");
  }
  if (report.measured_kl) {
    fmt::print(
        "KL divergence          {:.4f} nats on calibration text, weights rounded to nearest, "
        "lm_head in BF16\n",
        *report.measured_kl);
  }
  fmt::print("size                   {} -> {}\n", megabytes(report.before.bytes),
             megabytes(report.after.bytes));
  fmt::print("written to             {}\n", out);
}

void run(const Options& options) {
  const QuantizeOptions quantize = parse(options);
  const ModelWeights weights(options.model);
  expect_quantizable(weights, quantize, options.out, options.output);
  const std::string hash = model_hash(options.model);
  std::optional<Statistics> statistics;
  if (!options.stats.empty()) {
    statistics = load_statistics(options.stats, weights.config, hash);
  } else if (!options.data.empty()) {
    statistics = calibrate_on(weights, hash, options.data, options.calibration);
  }
  if (quantize.allocation.method == AllocationMethod::kBudget && !has_sensitivities(*statistics)) {
    Progress progress("measuring KL weights", "layers");
    measure_sensitivities(weights, *statistics, progress.function());
    if (!options.stats.empty()) save_statistics(options.stats, *statistics);
  }
  const InterruptNotice notice(options.out);
  QuantizeReport report;
  {
    Progress progress("quantizing", "layers");
    report = quantize_model(weights, hash, statistics ? &*statistics : nullptr, quantize,
                            options.out, options.output, progress.function());
  }
  print_report(options.out, report);
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "quantize", "Quantize a BF16 model's linear layers; embeddings stay BF16.");
  add_model(*command, options->model);
  command->add_option("-o,--out", options->out, "Folder to write; OUT.partial until it is whole")
      ->option_text("OUT")
      ->required();
  CLI::Option* stats =
      command
          ->add_option(
              "--stats", options->stats,
              "Statistics written by micromix calibrate; they or --data are required but for "
              "uniform methods with weights rounded to nearest")
          ->option_text("STATS")
          ->check(CLI::ExistingFile);
  command->add_option("--data", options->data, "Calibration text (UTF-8), instead of --stats")
      ->option_text("TEXT")
      ->check(CLI::ExistingFile)
      ->excludes(stats);
  add_calibration_options(*command, options->calibration);
  command
      ->add_option("--method", options->method,
                   "Which channels take which format: paper (MicroMix's thresholds), released "
                   "(those of its authors' code), budget (least harm at --bits), uniform:FORMAT")
      ->option_text("METHOD [paper]");
  CLI::Option* bits =
      command
          ->add_option(
              "--bits", options->bits,
              "Average bits that budget may spend, 4.25 to 8.25; the lm_head is not counted")
          ->option_text("B")
          ->check(CLI::Range(4.25, 8.25) & finite_number());
  command
      ->add_option(
          "--max-kl", options->max_kl,
          "KL divergence from the BF16 model that budget may cause on the calibration text, "
          "instead of --bits; the lm_head is taken as BF16")
      ->option_text("NATS")
      ->check(CLI::PositiveNumber & finite_number())
      ->excludes(bits);
  command
      ->add_option("--weights", options->weights,
                   "How weights are rounded: rtn (to nearest) or gptq (with error feedback)")
      ->option_text("rtn|gptq [rtn]")
      ->check(CLI::IsMember({"rtn", "gptq"}));
  command->add_option("--fp6", options->fp6, "The 6-bit format of paper and released")
      ->option_text("e3m2|e2m3 [e3m2]")
      ->check(CLI::IsMember({"e3m2", "e2m3"}));
  command->add_option("--scale-rule", options->scale_rule, "How block scales are chosen")
      ->option_text("floor|rceil|even [rceil, of budget: even]")
      ->check(CLI::IsMember({"floor", "rceil", "even"}));
  command
      ->add_option("--channel-group", options->channel_group,
                   "Channels per format are multiples of this")
      ->option_text("32|64|128 [32]")
      ->check(CLI::IsMember({32, 64, 128}));
  command
      ->add_option("--activations", options->activations,
                   "Activation format per weight format: same, bf16 (weight-only), one FORMAT for "
                   "all, or pairs e2m1=e4m3,…")
      ->option_text("FORMATS [same]");
  command
      ->add_option("--lm-head", options->lm_head,
                   "Format of the whole lm_head, rounded to nearest; where it is tied to the "
                   "embeddings, the output has one of its own")
      ->option_text("bf16|e2m1|e2m3|e3m2|e4m3 [bf16]")
      ->check(CLI::IsMember({"bf16", "e2m1", "e2m3", "e3m2", "e4m3"}));
  command
      ->add_option("--keep", options->keep,
                   "Leave linears whose name matches in BF16 (may be repeated)")
      ->option_text("REGEX")
      ->check(pattern_error)
      ->allow_extra_args(false);
  add_output_options(*command, options->output);
  add_threads(*command);
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
