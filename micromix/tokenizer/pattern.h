// What a Split or Replace component looks for: {"String": "..."} or {"Regex": "..."}.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "micromix/base/json.h"
#include "micromix/tokenizer/regex.h"

namespace micromix {

class Pattern {
 public:
  // COMPONENT's "pattern". Throws Error, also where it is the empty string.
  explicit Pattern(const JsonObject& component);

  // Calls MATCH(begin, end) for each match in TEXT, left to right, not overlapping. Valid UTF-8.
  void for_each_match(std::string_view text,
                      const std::function<void(size_t begin, size_t end)>& match) const;

  // TEXT with each match replaced by CONTENT.
  std::string replace(std::string_view text, std::string_view content) const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;  // instead of the literal
};

}  // namespace micromix
