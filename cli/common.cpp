#include "common.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>

#include <fmt/format.h>
#include <omp.h>
#include <signal.h>
#include <unistd.h>

#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cuda/backend.h"
#include "micromix/model/text.h"

namespace micromix::cli {
namespace {

char interrupt_partial[4096];
char interrupt_message[3 * sizeof interrupt_partial];

extern "C" void on_interrupt(int) {
  // OUT.partial can be resumed at every moment, so there is nothing to clean up: say so where it is
  // there, and go as the shell expects of an interrupted program.
  if (::access(interrupt_partial, F_OK) == 0) {
    [[maybe_unused]] const ssize_t written =
        ::write(STDERR_FILENO, interrupt_message, std::strlen(interrupt_message));
  }
  ::signal(SIGINT, SIG_DFL);
  ::raise(SIGINT);
}

std::string duration(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

}  // namespace

CLI::Option* add_model(CLI::App& command, std::string& model) {
  return command.add_option("model", model, "Model folder (config.json, safetensors, tokenizer)")
      ->option_text("MODEL")
      ->required()
      ->check(CLI::ExistingDirectory);
}

void add_threads(CLI::App& command) {
  command
      .add_option_function<int>(
          "--threads", [](int threads) { omp_set_num_threads(threads); },
          "Threads to compute with (default: all processors)")
      ->option_text("N")
      ->check(CLI::Range(1, 4096));
}

namespace {

// N of cuda:N.
std::optional<int> gpu_index(std::string_view device) {
  constexpr std::string_view kPrefix = "cuda:";
  if (!device.starts_with(kPrefix)) return std::nullopt;
  const char* const end = device.data() + device.size();
  int index = -1;
  const auto [stop, error] = std::from_chars(device.data() + kPrefix.size(), end, index);
  if (error != std::errc{} || stop != end || index < 0) return std::nullopt;
  return index;
}

std::string check_device(const std::string& device) {
  if (device == "cpu" || device == "cuda" || device == "reference" || gpu_index(device)) return "";
  return fmt::format("found '{}', expected cpu, cuda, cuda:N or reference", one_line(device));
}

}  // namespace

void add_device(CLI::App& command, std::string& device) {
  command
      .add_option(
          "--device", device,
          "Where the model runs: cpu (fast kernels), cuda or cuda:N (an NVIDIA GPU, sm_80 or "
          "newer, as micromix devices counts), reference (FP32, the oracle's twin)")
      ->option_text("cpu|cuda|cuda:N|reference [cpu]")
      ->check(check_device);
}

const kernels::Backend& backend_of(const std::string& device) {
  if (const auto index = gpu_index(device)) kernels::choose_gpu(*index);
  if (device.starts_with("cuda")) return kernels::cuda_backend();
  return device == "reference" ? kernels::reference_backend() : kernels::cpu_backend();
}

void add_output_options(CLI::App& command, OutputOptions& options) {
  command.add_flag("--resume", options.resume,
                   "Continue an interrupted run with the same inputs and options");
  command.add_flag("--force", options.force,
                   "Replace OUT and, without --resume, what an interrupted run left");
}

void add_calibration_options(CLI::App& command, CalibrationOptions& options) {
  command.add_option("--samples", options.samples, "Calibration samples")
      ->option_text(fmt::format("N [{}]", options.samples))
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--length", options.length, "Tokens a sample")
      ->option_text(fmt::format("N [{}]", options.length))
      ->check(CLI::Range(1, 1 << 20));
}

void add_evaluation_options(CLI::App& command, PerplexityOptions& options) {
  command.add_option("--window", options.window, "Tokens a window")
      ->option_text("N [1024]")
      ->check(CLI::Range(2, 1 << 24));
  command.add_option("--max-windows", options.max_windows, "Stop after N windows")
      ->option_text("N")
      ->check(CLI::Range(1, 1 << 30));
}

CLI::Validator finite_number() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        double value = 0;
        const bool finite = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
        return finite ? "" : fmt::format("found {}, expected a finite number", text);
      },
      "");
}

Statistics calibrate_on(const ModelWeights& weights, const std::string& hash,
                        const std::string& data, const CalibrationOptions& options) {
  const auto tokenizer = load_tokenizer(weights.store.model(), weights.config);
  const std::vector<TokenId> tokens = tokenize_file(*tokenizer, weights.config, data);
  const int64_t samples = calibration_samples(static_cast<int64_t>(tokens.size()), options);
  if (samples < options.samples) {
    fmt::print(stderr, "warning: {} has text for {} of {} samples of {} tokens\n", data, samples,
               options.samples, options.length);
  }
  Progress progress("calibrating", "samples");
  Statistics statistics = calibrate(weights, tokens, options, progress.function());
  statistics.text_hash = file_hash(data);
  statistics.model_hash = hash;
  return statistics;
}

InterruptNotice::InterruptNotice(const std::string& out) {
  const std::string partial = partial_of(out).string();
  const std::string message = fmt::format(
      "\ninterrupted: {} is kept; --resume (with --force where {} exists) continues it\n", partial,
      out);
  std::strncpy(interrupt_partial, partial.c_str(), sizeof interrupt_partial - 1);
  std::strncpy(interrupt_message, message.c_str(), sizeof interrupt_message - 1);
  ::signal(SIGINT, on_interrupt);
}

InterruptNotice::~InterruptNotice() {
  ::signal(SIGINT, SIG_DFL);
}

Progress::Progress(std::string label, std::string unit)
    : label_(std::move(label)), unit_(std::move(unit)), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (line_open_) fmt::print(stderr, "\n");
}

void Progress::update(int64_t done, int64_t total) {
  const Clock::time_point now = Clock::now();
  if (done < done_) start_ = shown_ = now;  // another pass begins
  done_ = done;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double since_shown = std::chrono::duration<double>(now - shown_).count();
  const bool started = shown_ != start_;
  const double interval = !started ? 2.0 : terminal_ ? 0.1 : 10.0;
  if (since_shown < interval && !(started && done == total)) return;
  shown_ = now;
  show(done, total, elapsed);
}

void Progress::show(int64_t done, int64_t total, double elapsed) {
  const double rate = static_cast<double>(done) / elapsed;
  const std::string facts = fmt::format("{}/{} {}, {:.3g}/s, {} left", done, total, unit_, rate,
                                        duration(static_cast<double>(total - done) / rate));
  if (terminal_) {
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(kWidth * done / total);
    fmt::print(stderr, "\r{} [{:=<{}}{: <{}}] {}\x1b[K", label_, "", filled, "", kWidth - filled,
               facts);
    std::fflush(stderr);
    line_open_ = true;
  } else {
    fmt::print(stderr, "{}: {}\n", label_, facts);
  }
}

std::string megabytes(int64_t bytes) {
  return fmt::format("{:.2f} MB", static_cast<double>(bytes) * 1e-6);
}

}  // namespace micromix::cli
