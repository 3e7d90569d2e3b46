// Runs the micromix command and looks at what it did.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "micromix/base/file.h"
#include "tests/testing.h"

namespace micromix::testing {

struct Outcome {
  int exit_code;
  std::string out;
  std::string err;
};

// ARGUMENTS are shell words, after an optional PREFIX that sets limits.
inline Outcome run_command(const std::string& arguments, const std::string& prefix = "") {
  const TemporaryFolder folder;
  const std::string command = prefix + " '" MICROMIX_COMMAND "' " + arguments + " >'" +
                              (folder / "out").string() + "' 2>'" + (folder / "err").string() + "'";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(folder / "out"),
          read_file(folder / "err")};
}

// The command with these arguments as a process of its own. Its standard error goes to the file
// ERR.
inline pid_t start_command(const std::vector<std::string>& arguments,
                           const std::filesystem::path& err = "/dev/stderr") {
  std::vector<char*> argv = {const_cast<char*>(MICROMIX_COMMAND)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen(err.c_str(), "w", stderr) != nullptr) ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  return child;
}

inline int lines_of(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

// A copy of the demo model to be damaged.
class ModelCopy {
 public:
  explicit ModelCopy(const std::filesystem::path& model = MICROMIX_DEMO_MODEL) {
    std::filesystem::copy(model, path());
  }
  std::filesystem::path path() const { return folder_ / "model"; }
  std::filesystem::path out() const { return folder_ / "out"; }

  // Applies CHANGE to a JSON file of the model.
  template <typename Change>
  void edit(const std::string& file, const Change& change) const {
    Json json = read_json(path() / file);
    change(json);
    write_text(path() / file, json.dump());
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace micromix::testing
