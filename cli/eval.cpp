// micromix eval: perplexity, and KL divergence from a reference model.
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/base/error.h"
#include "micromix/eval/perplexity.h"
#include "micromix/model/text.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string device = "cpu";
  std::string data;
  std::string reference;
  PerplexityOptions perplexity;
  bool json = false;
};

// Mean bits a weight of the linears, 16 where they are not quantized.
double average_bits(const ModelSize& size) {
  return size.average_bits > 0 ? size.average_bits : 16.0;
}

void print_json(const PerplexityResult& result, const ModelSize& size) {
  Json json = {{"perplexity", result.perplexity},
               {"tokens", result.tokens},
               {"windows", result.windows},
               {"average_bits", average_bits(size)},
               {"file_bits_per_parameter", size.bits_per_parameter},
               {"bytes", size.bytes}};
  if (result.kl) json["kl"] = *result.kl;
  if (result.top1) json["top1"] = *result.top1;
  fmt::print("{}\n", json.dump());
}

void print_table(const PerplexityResult& result, const ModelSize& size) {
  fmt::print("perplexity    {:.4f}\n", result.perplexity);
  fmt::print("predictions   {} in {} windows\n", result.tokens, result.windows);
  if (result.kl) fmt::print("kl            {:.5f} nats\n", *result.kl);
  if (result.top1) fmt::print("top1          {:.4f}\n", *result.top1);
  fmt::print("average bits  {:.4f} (whole file: {:.4f} bits a parameter, {})\n", average_bits(size),
             size.bits_per_parameter, megabytes(size.bytes));
}

void run(const Options& options) {
  const Model model(options.model, backend_of(options.device));
  std::optional<Model> reference;
  if (!options.reference.empty()) reference.emplace(options.reference, backend_of(options.device));
  const auto tokenizer = load_tokenizer(options.model, model.config());
  const std::vector<TokenId> tokens = tokenize_file(*tokenizer, model.config(), options.data);
  PerplexityResult result;
  {
    Progress progress("evaluating", "windows");
    result = evaluate_perplexity(model, reference ? &*reference : nullptr, tokens,
                                 options.perplexity, progress.function());
  }
  const ModelSize size = measure(model.weights());
  options.json ? print_json(result, size) : print_table(result, size);
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "eval", "Perplexity of a BF16 or quantized model, and its KL divergence from a reference.");
  add_model(*command, options->model);
  command->add_option("--data", options->data, "Text to predict (UTF-8)")
      ->option_text("TEXT")
      ->required()
      ->check(CLI::ExistingFile);
  add_evaluation_options(*command, options->perplexity);
  command
      ->add_option("--reference", options->reference,
                   "Model to compare with: adds kl (reference || MODEL) and top1")
      ->option_text("BASE_MODEL")
      ->check(CLI::ExistingDirectory);
  command->add_flag("--json", options->json, "Print one JSON object");
  add_device(*command, options->device);
  add_threads(*command);
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
