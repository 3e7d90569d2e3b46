#include "micromix/tokenizer/added_tokens.h"

#include <algorithm>

#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/regex.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

constexpr TokenId kBetween = -1;

uint64_t edge(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  const bool word_before =
      begin > 0 && is_word_character(utf8_code_point(text, utf8_previous(text, begin)));
  const bool word_after = end < text.size() && is_word_character(utf8_code_point(text, end));
  return !word_before && !word_after;
}

size_t white_space_begin(std::string_view text, size_t end, size_t least) {
  while (end > least) {
    const size_t before = utf8_previous(text, end);
    if (!is_white_space(utf8_code_point(text, before))) break;
    end = before;
  }
  return std::max(end, least);
}

size_t white_space_end(std::string_view text, size_t begin) {
  while (begin < text.size() && is_white_space(utf8_code_point(text, begin))) {
    begin += utf8_length(text[begin]);
  }
  return begin;
}

}  // namespace

AddedToken parse_added_token(const JsonObject& object, TokenId id) {
  require_known_keys(object, {"id", "content", "single_word", "lstrip", "rstrip", "normalized",
                              "special", "__type"});
  AddedToken token;
  token.id = id;
  token.content = object.string("content");
  token.single_word = object.boolean_or("single_word", false);
  token.lstrip = object.boolean_or("lstrip", false);
  token.rstrip = object.boolean_or("rstrip", false);
  token.normalized = object.boolean_or("normalized", !object.boolean_or("special", false));
  return token;
}

bool AddedTokenFinder::add(std::string_view text, const AddedToken& token) {
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [it, is_new] = edges_.emplace(edge(node, byte), nodes_);
    if (is_new) ++nodes_;
    node = it->second;
  }
  starts_[static_cast<unsigned char>(text.front())] = true;
  return ends_.emplace(node, token).second;
}

AddedTokenFinder::Match AddedTokenFinder::longest_match(std::string_view text, size_t at) const {
  Match match{at, nullptr};
  if (!starts_[static_cast<unsigned char>(text[at])]) return match;
  uint32_t node = 0;
  while (at < text.size()) {
    const auto next = edges_.find(edge(node, text[at]));
    if (next == edges_.end()) break;
    node = next->second;
    ++at;
    const auto end = ends_.find(node);
    if (end != ends_.end()) match = {at, &end->second};
  }
  return match;
}

std::vector<Segment> AddedTokenFinder::split(std::string_view text) const {
  std::vector<Segment> segments;
  size_t done = 0;
  size_t at = 0;
  while (at < text.size()) {
    const Match match = longest_match(text, at);
    if (match.token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = match.end;
    at = end;
    if (match.token->single_word && !is_single_word(text, begin, end)) continue;
    if (match.token->lstrip) begin = white_space_begin(text, begin, done);
    if (match.token->rstrip) end = white_space_end(text, end);
    if (done < begin) segments.push_back({done, begin, kBetween});
    if (begin < end) segments.push_back({begin, end, match.token->id});
    // The search goes on at the match's end, not behind the white space it took: a token in that
    // white space is found too, as in Hugging Face tokenizers.
    done = end;
  }
  if (done < text.size()) segments.push_back({done, text.size(), kBetween});
  return segments;
}

}  // namespace micromix
