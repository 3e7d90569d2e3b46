// micromix export: a quantized folder to a plain one that any other tool loads.
#include "micromix/checkpoint/export.h"

#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string out;
  std::string to;
  OutputOptions output;
};

void run(const Options& options) {
  const ModelWeights weights(options.model);
  const InterruptNotice notice(options.out);
  {
    Progress progress("exporting", "layers");
    export_bfloat16(weights, options.out, options.output, progress.function());
  }
  fmt::print("written to {}\n", options.out);
}

}  // namespace

void add_export(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("export", "Dequantize a quantized model to a plain Hugging Face folder.");
  add_model(*command, options->model);
  command->add_option("--to", options->to, "What to write")
      ->option_text("bf16")
      ->required()
      ->check(CLI::IsMember({"bf16"}));
  command->add_option("-o,--out", options->out, "Folder to write; OUT.partial until it is whole")
      ->option_text("OUT")
      ->required();
  add_output_options(*command, options->output);
  add_threads(*command);
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
