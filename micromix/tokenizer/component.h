// Reading the components of a tokenizer.json: objects with a "type".
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

#include "micromix/base/json.h"

namespace micromix {

// Throws Error naming the first key of OBJECT that is set and not in KNOWN: an option that this
// code does not know may change the tokens, so it is not passed over.
void require_known_keys(const JsonObject& object, std::initializer_list<std::string_view> known);

// Throws Error: KEY of COMPONENT is set to something not supported. SUPPORTED says what is.
[[noreturn]] void unsupported(const JsonObject& component, const std::string& key,
                              const std::string& supported);

// Calls EACH with every object in the array KEY of COMPONENT. Throws Error where it is none.
void for_each_object(const JsonObject& component, const std::string& key,
                     const std::function<void(const JsonObject&)>& each);

}  // namespace micromix
