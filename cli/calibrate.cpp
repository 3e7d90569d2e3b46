// micromix calibrate: statistics of every linear input, for quantize.
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/base/file.h"
#include "micromix/checkpoint/output_folder.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string data;
  std::string out;
  CalibrationOptions calibration;
};

void run(const Options& options) {
  const ModelWeights weights(options.model);
  { const FileWriter probe(options.out); }  // a place that cannot be written fails before the work
  const Statistics statistics =
      calibrate_on(weights, model_hash(options.model), options.data, options.calibration);
  save_statistics(options.out, statistics);
  fmt::print("{}: statistics of {} samples of {} tokens\n", options.out, statistics.samples,
             statistics.length);
}

}  // namespace

void add_calibrate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "calibrate", "Gather statistics of a BF16 model's activations over sample text.");
  add_model(*command, options->model);
  command->add_option("--data", options->data, "Calibration text (UTF-8)")
      ->option_text("TEXT")
      ->required()
      ->check(CLI::ExistingFile);
  command->add_option("-o,--out", options->out, "Where to write the statistics")
      ->option_text("STATS")
      ->required();
  add_calibration_options(*command, options->calibration);
  add_threads(*command);
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
