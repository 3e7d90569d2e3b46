// bench_model: how fast a model folder reads a prompt and writes tokens, and what it keeps in
// memory.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <omp.h>

#include "bench/program.h"
#include "bench/timing.h"
#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/base/json.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/model/model.h"

namespace micromix::bench {
namespace {

struct Options {
  std::string model;
  int64_t prompt = 512;
  int64_t tokens = 64;
  int repeats = 5;
  std::string json;
};

// FIELD of /proc/self/status in bytes: VmRSS, VmHWM (the peak of it), RssAnon (without files).
int64_t memory(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  throw Error("/proc/self/status: no " + field);
}

// Tokens a second, one number a repeat.
struct Rates {
  std::vector<double> prefill;
  std::vector<double> decode;
};

// Runs IDS and computes the logits that follow the last.
void step(const Model& model, std::span<const int32_t> ids, Context& context) {
  if (!std::isfinite(model.next_logits(ids, context).front()))
    throw Error("logits: found NaN or Inf");
}

// PROMPT and TOKENS as a new sequence; tokens one at a time, their ids known beforehand: sampling
// is not measured.
void run_once(const Model& model, std::span<const int32_t> prompt, std::span<const int32_t> tokens,
              Context& context, Rates& rates) {
  context.clear();
  double start = now();
  step(model, prompt, context);
  rates.prefill.push_back(static_cast<double>(prompt.size()) / (now() - start));

  start = now();
  for (size_t i = 0; i < tokens.size(); ++i) step(model, tokens.subspan(i, 1), context);
  rates.decode.push_back(static_cast<double>(tokens.size()) / (now() - start));
}

void print_rates(const char* label, int64_t tokens, const std::vector<double>& rates) {
  const auto [low, high] = std::minmax_element(rates.begin(), rates.end());
  fmt::print("{:<22} {:.2f} tokens/s ({} tokens; {:.2f} to {:.2f} in {} runs)\n", label,
             median(rates), tokens, *low, *high, rates.size());
}

std::string megabytes(int64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
}

void run(const Options& options) {
  const Model model(options.model, kernels::cpu_backend());
  const ModelConfig& config = model.config();
  const int64_t loaded = memory("VmRSS");
  const ModelSize size = measure(model.weights());

  std::mt19937_64 random(1);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(config.vocab_size) - 1);
  std::vector<int32_t> ids(options.prompt + options.tokens);
  for (int32_t& id : ids) id = any(random);
  const auto prompt = std::span<const int32_t>(ids).first(options.prompt);
  const auto tokens = std::span<const int32_t>(ids).subspan(options.prompt);
  expect_context(config, static_cast<int64_t>(ids.size()));
  Context context = model.make_context(static_cast<int64_t>(ids.size()));

  Rates unused;  // the first run touches memory for the first time
  run_once(model, prompt, tokens.first(1), context, unused);
  Rates rates;
  for (int i = 0; i < options.repeats; ++i) run_once(model, prompt, tokens, context, rates);
  const int64_t resident = memory("VmRSS");
  const int64_t anonymous = memory("RssAnon");
  const int64_t peak = memory("VmHWM");

  fmt::print("model                  {}: {} layers, {:.3f} average bits, {}\n", options.model,
             config.num_layers, size.average_bits, megabytes(size.bytes));
  fmt::print("backend                {}, {} threads\n",
             std::string(kernels::cpu::chosen_kernels().name), omp_get_max_threads());
  print_rates("prefill", options.prompt, rates.prefill);
  print_rates("decode", options.tokens, rates.decode);
  fmt::print("resident               {} loaded, {} after the runs ({} of it not mapped), {} peak\n",
             megabytes(loaded), megabytes(resident), megabytes(anonymous), megabytes(peak));
  if (options.json.empty()) return;
  const Json json = {{"model", options.model},
                     {"backend", std::string(kernels::cpu::chosen_kernels().name)},
                     {"threads", omp_get_max_threads()},
                     {"average_bits", size.average_bits},
                     {"file_bytes", size.bytes},
                     {"prompt", options.prompt},
                     {"tokens", options.tokens},
                     {"prefill_tokens_per_second", median(rates.prefill)},
                     {"decode_tokens_per_second", median(rates.decode)},
                     {"loaded_resident_bytes", loaded},
                     {"resident_bytes", resident},
                     {"anonymous_resident_bytes", anonymous},
                     {"peak_resident_bytes", peak}};
  write_file(options.json, json.dump(2) + "\n");
}

}  // namespace
}  // namespace micromix::bench

int main(int argc, char** argv) {
  CLI::App app("Measures a model's prefill, decode and memory on random tokens.", "bench_model");
  micromix::bench::Options options;
  app.add_option("model", options.model, "Model folder (config.json, safetensors)")
      ->option_text("MODEL")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--prompt", options.prompt, "Tokens of the prompt, read at once")
      ->option_text("N [512]")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--tokens", options.tokens, "Tokens that follow it, one at a time")
      ->option_text("N [64]")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--repeats", options.repeats, "Runs, of which the median counts")
      ->option_text("N [5]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option_function<int>(
         "--threads", [](int threads) { omp_set_num_threads(threads); },
         "Threads to compute with (default: all processors)")
      ->option_text("N")
      ->check(CLI::Range(1, 4096));
  app.add_option("--json", options.json, "File to write the figures to")->option_text("FILE");
  return micromix::bench::run_program(app, argc, argv, [&] { micromix::bench::run(options); });
}
