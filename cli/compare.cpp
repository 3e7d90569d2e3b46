// micromix compare: many methods on one model, measured alike.
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/base/file.h"
#include "micromix/compare/report.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string data;
  std::string text;
  std::string out;
  ComparisonOptions comparison;
};

void print_run(const ComparisonRun& run) {
  const std::string target = run.target_bits ? fmt::format("{:g}", *run.target_bits) : "";
  fmt::print("{:<14} {:>6} {:>9.3f} {:>10.3f} {:>12.4f} {:>9.5f} {:>8.4f}\n", run.method, target,
             run.average_bits, run.bits_per_parameter, run.perplexity, run.kl, run.top1);
  std::fflush(stdout);
}

void run(const Options& options) {
  fmt::print("{:<14} {:>6} {:>9} {:>10} {:>12} {:>9} {:>8}\n", "method", "target", "bits",
             "bits/param", "perplexity", "KL", "top1");
  const std::filesystem::path out = options.out;
  Comparison comparison;
  {
    Progress progress("evaluating", "windows");
    comparison = compare(options.model, options.data, options.text, options.comparison, out,
                         print_run, progress.function());
  }
  write_file(out / "results.md", markdown_table(comparison));
  write_file(out / "index.html", html_report(comparison));
  fmt::print("written to {0}/results.json, results.md and index.html\n", options.out);
}

}  // namespace

void add_compare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  options->comparison.methods = default_methods();
  CLI::App* command = app.add_subcommand(
      "compare",
      "Quantize a model by many methods and chart their accuracy against bits. An interrupted "
      "comparison goes on where it stopped.");
  add_model(*command, options->model);
  command->add_option("--data", options->data, "Calibration text (UTF-8)")
      ->option_text("CALIB")
      ->required()
      ->check(CLI::ExistingFile);
  command->add_option("--eval", options->text, "Text to predict (UTF-8)")
      ->option_text("TEXT")
      ->required()
      ->check(CLI::ExistingFile);
  command->add_option("-o,--out", options->out, "Folder for results.json, results.md, index.html")
      ->option_text("DIR")
      ->required();
  command
      ->add_option(
          "--methods", options->comparison.methods,
          fmt::format("Comma-separated, of: {}; any but bf16, nvfp4, int4 and int8 also with "
                      "+gptq [all of these]",
                      fmt::join(default_methods(), " ")))
      ->option_text("LIST")
      ->delimiter(',')
      ->check([](const std::string& method) { return method_error(method).value_or(""); });
  command
      ->add_option("--bits", options->comparison.bits,
                   "Comma-separated average bits for the budget methods to meet")
      ->option_text("LIST")
      ->delimiter(',')
      ->required()
      ->check(CLI::Range(4.25, 8.25) & finite_number());
  add_calibration_options(*command, options->comparison.calibration);
  add_evaluation_options(*command, options->comparison.evaluation);
  add_threads(*command);
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
