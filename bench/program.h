// What main() of every benchmark program ends with.
#pragma once

#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace micromix::bench {

// How --help shows an option that takes a list, with its default.
inline std::string list_text(const auto& values) {
  return fmt::format("LIST [{}]", fmt::join(values, ","));
}

// Parses the arguments and runs; the exit code is 0, 1 (failed, with one line) or 2 (bad usage).
inline int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& run) {
  try {
    app.parse(argc, argv);
    run();
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: error: {}\n", app.get_name(), error.what());
    return 1;
  }
  return 0;
}

}  // namespace micromix::bench
