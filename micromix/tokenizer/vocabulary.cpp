#include "micromix/tokenizer/vocabulary.h"

#include <algorithm>
#include <limits>

#include "micromix/base/error.h"

namespace micromix {

TokenId parse_token_id(const JsonObject& object, const std::string& key) {
  return static_cast<TokenId>(object.integer(key, 0, std::numeric_limits<TokenId>::max()));
}

Vocabulary Vocabulary::parse(const JsonObject& object, const std::string& key) {
  const JsonObject entries = object.object(key);
  Vocabulary vocabulary;
  vocabulary.ids_.reserve(entries.json().size());
  vocabulary.tokens_.reserve(entries.json().size());
  for (const auto& [token, id_json] : entries.json().items()) {
    const TokenId id = parse_token_id(entries, token);
    if (vocabulary.add(token, id)) continue;
    const std::string* other = vocabulary.token(id);
    entries.fail(token, fmt::format("id {}, which {} has too", id, describe(Json(*other))),
                 "each id once");
  }
  return vocabulary;
}

bool Vocabulary::add(const std::string& token, TokenId id) {
  if (ids_.contains(token) || !tokens_.emplace(id, token).second) return false;
  ids_.emplace(token, id);
  size_ = std::max<int64_t>(size_, int64_t{id} + 1);
  return true;
}

std::optional<TokenId> Vocabulary::find(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? std::nullopt : std::optional<TokenId>(it->second);
}

const std::string* Vocabulary::token(TokenId id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second;
}

}  // namespace micromix
