// The one error type of the library.
//
// Untrusted input (checkpoints, configs, tokenizers, text, options) is checked once, where it enters,
// by code that throws Error. Inside, invariants are assertions.
#pragma once

#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace micromix {

// A failure a person can act on. The message is one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error("FILE: FIELD: found FOUND, expected EXPECTED"). FIELD is the tensor, JSON key or byte
// range at fault.
[[noreturn]] inline void throw_invalid(const std::string& file, const std::string& field,
                                       const std::string& found, const std::string& expected) {
  throw Error(fmt::format("{}: {}: found {}, expected {}", file, field, found, expected));
}

}  // namespace micromix
