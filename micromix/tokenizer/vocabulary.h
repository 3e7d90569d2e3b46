// Tokens and their ids, both ways.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "micromix/base/json.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

class Vocabulary {
 public:
  // The object KEY of OBJECT: token to id. Throws Error where an id is no TokenId or is there
  // twice.
  static Vocabulary parse(const JsonObject& object, const std::string& key);

  // False, and nothing changes, where TOKEN or ID is there already.
  bool add(const std::string& token, TokenId id);
  // What decoding shows for ID from now on; the token stays what encoding looks up.
  void set_shown(TokenId id, std::string shown) { tokens_[id] = std::move(shown); }

  std::optional<TokenId> find(std::string_view token) const;
  // Null where there is no such id.
  const std::string* token(TokenId id) const;

  // One more than the largest id.
  int64_t size() const { return size_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
  std::unordered_map<TokenId, std::string> tokens_;
  int64_t size_ = 0;
};

// The id at KEY of OBJECT. Throws Error where it is not from 0 to 2³¹−1.
TokenId parse_token_id(const JsonObject& object, const std::string& key);

}  // namespace micromix
