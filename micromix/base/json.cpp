#include "micromix/base/json.h"

#include <set>
#include <vector>

#include "micromix/base/error.h"
#include "micromix/base/file.h"

namespace micromix {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

Json parse_json(std::string_view text, const std::string& file) {
  // The parser takes a zero byte for the end of its input and would ignore what follows.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw_invalid(file, "JSON", fmt::format("a zero byte at offset {}", zero), "valid JSON");
  }
  std::vector<std::set<std::string>> keys;  // of the objects open at this point
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        if (depth > kMaxDepth) {
          throw_invalid(file, "JSON", fmt::format("nesting deeper than {}", kMaxDepth),
                        fmt::format("at most {} levels", kMaxDepth));
        }
        break;
      case Json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(parsed.get<std::string>()).second) {
          throw_invalid(file, parsed.get<std::string>(), "the key twice", "each key once");
        }
        break;
      default:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& error) {
    std::string what = error.what();
    for (char& c : what) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
    }
    throw_invalid(file, "JSON", what, "valid JSON");
  }
}

Json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

std::string describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

JsonObject::JsonObject(const Json& value, std::string file, std::string path)
    : value_(&value), file_(std::move(file)), path_(std::move(path)) {
  if (!value.is_object()) {
    throw_invalid(file_, path_.empty() ? "root" : path_, describe(value), "a JSON object");
  }
}

std::string JsonObject::path_of(const std::string& key) const {
  return path_.empty() ? key : path_ + "." + key;
}

void JsonObject::fail(const std::string& key, const std::string& found,
                      const std::string& expected) const {
  throw_invalid(file_, path_of(key), found, expected);
}

bool JsonObject::has(const std::string& key) const {
  const auto it = value_->find(key);
  return it != value_->end() && !it->is_null();
}

const Json& JsonObject::at(const std::string& key) const {
  if (!has(key)) fail(key, "nothing", "a value");
  return value_->at(key);
}

JsonObject JsonObject::object(const std::string& key) const {
  return JsonObject(at(key), file_, path_of(key));
}

int64_t JsonObject::integer(const std::string& key, int64_t min, int64_t max) const {
  const Json& value = at(key);
  const std::string expected = fmt::format("a whole number from {} to {}", min, max);
  if (!value.is_number_integer()) fail(key, describe(value), expected);
  const bool too_large =
      value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_large || value.get<int64_t>() < min || value.get<int64_t>() > max) {
    fail(key, describe(value), expected);
  }
  return value.get<int64_t>();
}

int64_t JsonObject::integer_or(const std::string& key, int64_t fallback, int64_t min,
                               int64_t max) const {
  return has(key) ? integer(key, min, max) : fallback;
}

double JsonObject::number(const std::string& key) const {
  const Json& value = at(key);
  if (!value.is_number()) fail(key, describe(value), "a number");
  return value.get<double>();
}

double JsonObject::number_or(const std::string& key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonObject::boolean_or(const std::string& key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& value = at(key);
  if (!value.is_boolean()) fail(key, describe(value), "true or false");
  return value.get<bool>();
}

std::string JsonObject::string(const std::string& key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail(key, describe(value), "a string");
  return value.get<std::string>();
}

std::string JsonObject::string_or(const std::string& key, const std::string& fallback) const {
  return has(key) ? string(key) : fallback;
}

}  // namespace micromix
