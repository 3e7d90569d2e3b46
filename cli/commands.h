// The subcommands: each adds itself to the application and runs from its callback.
#pragma once

#include <CLI/CLI.hpp>

namespace micromix::cli {

void add_calibrate(CLI::App& app);
void add_quantize(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_inspect(CLI::App& app);
void add_export(CLI::App& app);
void add_compare(CLI::App& app);
void add_devices(CLI::App& app);

}  // namespace micromix::cli
