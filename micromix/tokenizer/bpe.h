// Byte pair encoding: a piece of text begins as its characters, and the adjacent pair that the
// merge list ranks first (the leftmost of equals) is joined, until no pair is in the list.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "micromix/base/json.h"
#include "micromix/tokenizer/vocabulary.h"

namespace micromix {

class Bpe {
 public:
  // A tokenizer.json's "model". Throws Error, also where it sets an option that is not supported.
  explicit Bpe(const JsonObject& model);

  // Appends the tokens of PIECE (valid UTF-8, not empty, less than 2³¹ bytes) to OUT, in
  // O(n log n). A character that is no token becomes its byte tokens (byte_fallback), else the
  // unknown token, else nothing.
  void encode(std::string_view piece, std::vector<TokenId>& out) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    TokenId result;
  };
  // A token in the making: a link in a list over the positions of a piece's characters.
  struct Symbol {
    TokenId id;
    int32_t previous;
    int32_t next;
    bool removed;
  };
  // A pair that may be merged: the symbol at POSITION with its next.
  struct Candidate {
    uint32_t rank;
    int32_t position;
    TokenId result;
  };

  void parse_merges(const JsonObject& model);
  void add_merge(const std::string& left, const std::string& right, uint32_t rank,
                 const JsonObject& model, const std::string& field);
  void parse_fallbacks(const JsonObject& model);

  const Merge* find_merge(TokenId left, TokenId right) const;
  std::vector<Symbol> characters(std::string_view piece) const;
  bool append_bytes(std::string_view character, std::vector<TokenId>& ids) const;
  void merge_all(std::vector<Symbol>& symbols) const;

  Vocabulary vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left << 32 | right
  std::optional<TokenId> unknown_;
  std::array<std::optional<TokenId>, 256> byte_tokens_;  // empty without byte_fallback
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace micromix
