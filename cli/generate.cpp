// micromix generate: continue a prompt, streaming.
#include "micromix/model/generate.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/model/text.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string device = "cpu";
  std::string prompt;
  std::string prompt_file;
  GenerateOptions generate;
  std::optional<int64_t> max_new_tokens;
  std::optional<uint64_t> seed;
};

void print_now(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void run(Options options) {
  const Model model(options.model, backend_of(options.device));
  const auto tokenizer = load_tokenizer(options.model, model.config());
  const std::string prompt =
      options.prompt_file.empty() ? options.prompt : read_file(options.prompt_file);
  const std::string source = options.prompt_file.empty() ? "--prompt" : options.prompt_file;
  const std::vector<TokenId> ids = tokenize(*tokenizer, prompt, /*add_special=*/true, source);
  if (ids.empty()) throw_invalid(source, "text", "no tokens", "at least one");
  expect_in_vocabulary(ids, model.config(), source);
  const int64_t room = max_context(model.config()) - static_cast<int64_t>(ids.size()) + 1;
  options.generate.max_new_tokens = options.max_new_tokens.value_or(
      std::clamp(room, int64_t{1}, options.generate.max_new_tokens));
  options.generate.sampling.seed = options.seed ? *options.seed : std::random_device{}();

  StreamDecoder decoder(*tokenizer);
  generate(model, ids, options.generate, [&](int32_t token) { print_now(decoder.push(token)); });
  print_now(decoder.finish() + "\n");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  GenerateOptions& generate = options->generate;
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt, printing as it goes.");
  add_model(*command, options->model);
  auto* prompt = command->add_option_group("prompt")->require_option(1);
  prompt->add_option("--prompt", options->prompt, "Text to continue")->option_text("TEXT");
  prompt->add_option("--prompt-file", options->prompt_file, "File whose text to continue")
      ->option_text("F")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--max-new-tokens", options->max_new_tokens,
                   "Tokens to generate at most (default: 128, or what the context holds)")
      ->option_text("N")
      ->check(CLI::Range(1, 1 << 24));
  command
      ->add_option("--temperature", generate.sampling.temperature,
                   "Divides the logits; 0 takes the most likely token")
      ->option_text("T [0]")
      ->check(CLI::Range(0.0, 1e6) & finite_number());
  command->add_option("--top-k", generate.sampling.top_k, "Sample from the K most likely; 0: all")
      ->option_text("K [0]")
      ->check(CLI::Range(0, 1 << 24));
  command
      ->add_option("--top-p", generate.sampling.top_p,
                   "Sample from the most likely that together reach P")
      ->option_text("P [1]")
      ->check(CLI::Range(0.0, 1.0) & finite_number());
  command->add_option("--seed", options->seed, "Seed of the sampling (default: a random one)")
      ->option_text("N");
  command->add_flag("--ignore-eos", generate.ignore_eos, "Go on past end-of-sequence tokens");
  add_device(*command, options->device);
  add_threads(*command);
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
