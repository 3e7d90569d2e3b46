#include "micromix/tokenizer/component.h"

#include <algorithm>

#include "micromix/base/error.h"

namespace micromix {

void require_known_keys(const JsonObject& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.json().items()) {
    if (value.is_null() || std::find(known.begin(), known.end(), key) != known.end()) continue;
    object.fail(key, "an option that is not supported: " + describe(value), "nothing or null");
  }
}

void unsupported(const JsonObject& component, const std::string& key,
                 const std::string& supported) {
  const std::string found = component.has(key) ? describe(component.at(key)) : "nothing";
  component.fail(key, found, "one that is supported: " + supported);
}

void for_each_object(const JsonObject& component, const std::string& key,
                     const std::function<void(const JsonObject&)>& each) {
  const Json& array = component.at(key);
  if (!array.is_array()) component.fail(key, describe(array), "an array");
  for (size_t i = 0; i < array.size(); ++i) {
    each(JsonObject(array[i], component.file(), fmt::format("{}[{}]", component.path_of(key), i)));
  }
}

}  // namespace micromix
