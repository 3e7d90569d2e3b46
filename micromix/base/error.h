// The one error type of the library.
//
// Untrusted input (checkpoints, configs, tokenizers, text, options) is checked once, where it
// enters, by code that throws Error. Inside, invariants are assertions.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace micromix {

// A failure a person can act on. The message is one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// TEXT with control characters escaped and what lies beyond LIMIT bytes left out. Names and values
// in messages come from untrusted files: they must break neither the line nor the terminal.
inline std::string one_line(std::string_view text, size_t limit = std::string_view::npos) {
  const bool cut = text.size() > limit;
  if (cut) {
    // Not within a UTF-8 sequence.
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
    text = text.substr(0, limit);
  }
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
  }
  return cut ? line + "..." : line;
}

// Throws Error("FILE: FIELD: found FOUND, expected EXPECTED"). FIELD is the tensor, JSON key or
// byte range at fault.
[[noreturn]] inline void throw_invalid(const std::string& file, const std::string& field,
                                       const std::string& found, const std::string& expected) {
  constexpr size_t kLimit = 240;
  throw Error(fmt::format("{}: {}: found {}, expected {}", one_line(file), one_line(field, kLimit),
                          one_line(found, kLimit), one_line(expected)));
}

}  // namespace micromix
