// JSON from untrusted files: bounded depth, no duplicate keys, typed access with messages that name
// the file and the field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace micromix {

using Json = nlohmann::json;

// Parses TEXT. FILE names it in messages. Throws Error on a syntax error, a duplicate key, invalid
// UTF-8, or nesting deeper than 64.
Json parse_json(std::string_view text, const std::string& file);

// Reads and parses a whole file. Throws Error, also where it cannot be read.
Json read_json(const std::filesystem::path& path);

// Typed, checked access to the fields of one JSON object. Throws Error naming FILE and the dotted
// path of the field.
class JsonObject {
 public:
  // PATH is the dotted path of VALUE in the file, empty for the root. VALUE must outlive this.
  JsonObject(const Json& value, std::string file, std::string path = "");

  // Absent and null count as missing.
  bool has(const std::string& key) const;
  const Json& at(const std::string& key) const;
  JsonObject object(const std::string& key) const;

  // Whole numbers in [MIN, MAX]; 4.0 is not a whole number.
  int64_t integer(const std::string& key, int64_t min, int64_t max) const;
  int64_t integer_or(const std::string& key, int64_t fallback, int64_t min, int64_t max) const;
  // Any finite number.
  double number(const std::string& key) const;
  double number_or(const std::string& key, double fallback) const;
  bool boolean_or(const std::string& key, bool fallback) const;
  std::string string(const std::string& key) const;
  std::string string_or(const std::string& key, const std::string& fallback) const;

  // Throws Error for KEY of this object.
  [[noreturn]] void fail(const std::string& key, const std::string& found,
                         const std::string& expected) const;

  const Json& json() const { return *value_; }
  const std::string& file() const { return file_; }
  std::string path_of(const std::string& key) const;

 private:
  const Json* value_;
  std::string file_;
  std::string path_;
};

// A short description of a JSON value for messages: its type, and the value if it is short.
std::string describe(const Json& value);

}  // namespace micromix
