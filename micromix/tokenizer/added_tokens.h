// Tokens added to a model's vocabulary (special ones, mostly): found in text before the model sees
// it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "micromix/base/json.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = true;    // looked for in normalized text, and normalized itself
};

// The added token with ID that OBJECT describes. Throws Error, also for a flag that is not known.
AddedToken parse_added_token(const JsonObject& object, TokenId id);

// A stretch of a text: an added token, or (id < 0) what lies between them.
struct Segment {
  size_t begin;
  size_t end;
  TokenId id;
};

// Finds added tokens: leftmost first, of those the longest.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;

  // Looks for TEXT, which stands for TOKEN, from now on. False where TEXT is looked for already.
  bool add(std::string_view text, const AddedToken& token);

  // The segments of TEXT (valid UTF-8), in order. A byte costs at most the longest token's length.
  std::vector<Segment> split(std::string_view text) const;

 private:
  struct Match {
    size_t end;
    const AddedToken* token;  // null where nothing matches
  };

  Match longest_match(std::string_view text, size_t at) const;

  // A trie over bytes, by node << 8 | byte.
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::unordered_map<uint32_t, AddedToken> ends_;
  std::array<bool, 256> starts_{};  // bytes with an edge from the root: most positions need no more
  uint32_t nodes_ = 1;
};

}  // namespace micromix
