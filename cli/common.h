// What several subcommands share: options, progress, messages.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include <CLI/CLI.hpp>

#include "micromix/base/progress.h"
#include "micromix/checkpoint/output_folder.h"
#include "micromix/eval/perplexity.h"
#include "micromix/quantize/calibration.h"

namespace micromix::cli {

// The positional argument MODEL.
CLI::Option* add_model(CLI::App& command, std::string& model);

// --threads, applied to OpenMP as soon as it is parsed.
void add_threads(CLI::App& command);

// --device: where a model runs.
void add_device(CLI::App& command, std::string& device);
// Throws Error where this machine or build lacks it.
const kernels::Backend& backend_of(const std::string& device);

// --resume and --force of commands that write a model folder.
void add_output_options(CLI::App& command, OutputOptions& options);

// --samples and --length.
void add_calibration_options(CLI::App& command, CalibrationOptions& options);

// --window and --max-windows.
void add_evaluation_options(CLI::App& command, PerplexityOptions& options);

// Refuses NaN, which CLI::Range lets through, and Inf.
CLI::Validator finite_number();

// Statistics of MODEL over the text file DATA, with progress; warns on stderr where the text is
// shorter than asked for.
Statistics calibrate_on(const ModelWeights& weights, const std::string& hash,
                        const std::string& data, const CalibrationOptions& options);

// Until it goes out of scope, Ctrl-C says that OUT.partial is kept and how to go on.
class InterruptNotice {
 public:
  explicit InterruptNotice(const std::string& out);
  ~InterruptNotice();
};

// Shows on stderr how far a command is, once it has taken two seconds: a bar with rate and time
// left on a terminal, else a plain line now and then.
class Progress {
 public:
  Progress(std::string label, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;

  ProgressFunction function() {
    return [this](int64_t done, int64_t total) { update(done, total); };
  }

 private:
  void update(int64_t done, int64_t total);
  void show(int64_t done, int64_t total, double elapsed);

  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::string unit_;
  bool terminal_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point shown_ = start_;
  int64_t done_ = 0;
  bool line_open_ = false;
};

// "21.3 MB"
std::string megabytes(int64_t bytes);

}  // namespace micromix::cli
