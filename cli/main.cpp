// micromix: the command. Exit codes: 0 done, 1 failed, 2 bad usage.
#include <cstdio>
#include <exception>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "commands.h"
#include "micromix/base/error.h"

namespace {

// CLI11 marks what is required only where an option has no text of its own.
class HelpFormatter : public CLI::Formatter {
  std::string make_option_desc(const CLI::Option* option) const override {
    return option->get_description() + (option->get_required() ? " (required)" : "");
  }
};

// What was printed may still be on its way, or have failed to arrive.
void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    throw micromix::Error("standard output: cannot write");
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Mixed microscaling quantization (MXFP4, MXFP6, MXFP8) of Llama- and Qwen-family "
      "language models.",
      "micromix");
  app.set_version_flag("--version", "micromix " MICROMIX_VERSION);
  app.require_subcommand(1);
  app.formatter(std::make_shared<HelpFormatter>());
  app.get_formatter()->column_width(36);
  micromix::cli::add_calibrate(app);
  micromix::cli::add_quantize(app);
  micromix::cli::add_eval(app);
  micromix::cli::add_generate(app);
  micromix::cli::add_tokenize(app);
  micromix::cli::add_inspect(app);
  micromix::cli::add_export(app);
  micromix::cli::add_compare(app);
  micromix::cli::add_devices(app);
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& success) {  // --help, --version
      app.exit(success);
    }
    flush_output();
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return 2;
  } catch (const std::exception& error) {
    // Not by fmt::print, which throws where that cannot be written either.
    std::fputs(fmt::format("micromix: error: {}\n", error.what()).c_str(), stderr);
    return 1;
  }
  return 0;
}
