#include "micromix/tokenizer/bpe.h"

#include <queue>

#include "micromix/base/error.h"
#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

uint64_t pair_key(TokenId left, TokenId right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const JsonObject& model) {
  require_known_keys(
      model, {"type", "vocab", "merges", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges",
              "dropout", "continuing_subword_prefix", "end_of_word_suffix"});
  if (model.has("type") && model.string("type") != "BPE") unsupported(model, "type", "BPE");
  // Off in every released model's file, if present: null, 0 or empty.
  if (model.number_or("dropout", 0) != 0) unsupported(model, "dropout", "null");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string_or(affix, "").empty()) unsupported(model, affix, "null");
  }
  ignore_merges_ = model.boolean_or("ignore_merges", false);
  fuse_unknown_ = model.boolean_or("fuse_unk", false);
  vocabulary_ = Vocabulary::parse(model, "vocab");
  parse_merges(model);
  parse_fallbacks(model);
}

void Bpe::parse_merges(const JsonObject& model) {
  const Json& merges = model.at("merges");
  if (!merges.is_array()) model.fail("merges", describe(merges), "an array");
  if (merges.size() > INT32_MAX) model.fail("merges", "2³¹ or more", "fewer merges");
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Json& merge = merges[rank];
    const std::string field = fmt::format("merges[{}]", rank);
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos) {
        model.fail(field, describe(merge), "two tokens with a space between");
      }
      add_merge(text.substr(0, space), text.substr(space + 1), static_cast<uint32_t>(rank), model,
                field);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      add_merge(merge[0], merge[1], static_cast<uint32_t>(rank), model, field);
    } else {
      model.fail(field, describe(merge), "\"a b\" or [\"a\", \"b\"]");
    }
  }
}

void Bpe::add_merge(const std::string& left, const std::string& right, uint32_t rank,
                    const JsonObject& model, const std::string& field) {
  const auto id_of = [&](const std::string& token) {
    const auto id = vocabulary_.find(token);
    if (!id) {
      model.fail(field, describe(Json(token)) + ", which is not in vocab",
                 "tokens of vocab, also when joined");
    }
    return *id;
  };
  // Of a pair that is there twice the last entry holds, as in Hugging Face tokenizers.
  const TokenId left_id = id_of(left);
  const TokenId right_id = id_of(right);
  merges_[pair_key(left_id, right_id)] = {rank, id_of(left + right)};
}

void Bpe::parse_fallbacks(const JsonObject& model) {
  if (model.has("unk_token")) {
    unknown_ = vocabulary_.find(model.string("unk_token"));
    if (!unknown_) model.fail("unk_token", describe(model.at("unk_token")), "a token of vocab");
  }
  if (!model.boolean_or("byte_fallback", false)) return;
  for (size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    byte_tokens_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte));
  }
}

const Bpe::Merge* Bpe::find_merge(TokenId left, TokenId right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void Bpe::encode(std::string_view piece, std::vector<TokenId>& out) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.find(piece)) {
      out.push_back(*id);
      return;
    }
  }
  std::vector<Symbol> symbols = characters(piece);
  merge_all(symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.removed) out.push_back(symbol.id);
  }
}

bool Bpe::append_bytes(std::string_view character, std::vector<TokenId>& ids) const {
  const size_t before = ids.size();
  for (const char byte : character) {
    const auto id = byte_tokens_[static_cast<unsigned char>(byte)];
    if (!id) {
      ids.resize(before);
      return false;
    }
    ids.push_back(*id);
  }
  return true;
}

std::vector<Bpe::Symbol> Bpe::characters(std::string_view piece) const {
  std::vector<TokenId> ids;
  ids.reserve(piece.size());
  // An unknown token waits for the next known character, as in Hugging Face tokenizers: byte tokens
  // in between come before it.
  bool unknown_waits = false;
  for (size_t at = 0; at < piece.size(); at += utf8_length(piece[at])) {
    const std::string_view character = piece.substr(at, utf8_length(piece[at]));
    if (const auto id = vocabulary_.find(character)) {
      if (unknown_waits) ids.push_back(*unknown_);
      unknown_waits = false;
      ids.push_back(*id);
    } else if (!append_bytes(character, ids) && unknown_) {
      if (unknown_waits && !fuse_unknown_) ids.push_back(*unknown_);
      unknown_waits = true;
    }
  }
  if (unknown_waits) ids.push_back(*unknown_);

  std::vector<Symbol> symbols(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto position = static_cast<int32_t>(i);
    symbols[i] = {ids[i], position - 1, i + 1 < ids.size() ? position + 1 : -1, false};
  }
  return symbols;
}

void Bpe::merge_all(std::vector<Symbol>& symbols) const {
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  std::vector<Candidate> initial;
  initial.reserve(symbols.size());
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const Merge* merge = find_merge(symbols[i].id, symbols[i + 1].id)) {
      initial.push_back({merge->rank, static_cast<int32_t>(i), merge->result});
    }
  }
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> queue(later,
                                                                                std::move(initial));

  const auto push = [&](int32_t position) {
    const Symbol& symbol = symbols[position];
    if (symbol.next < 0) return;
    if (const Merge* merge = find_merge(symbol.id, symbols[symbol.next].id)) {
      queue.push({merge->rank, position, merge->result});
    }
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.position];
    if (left.removed || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // A neighbour may have changed since the candidate was pushed; what counts is whether the pair
    // there now makes the same token.
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->result != top.result) continue;
    left.id = top.result;
    left.next = right.next;
    right.removed = true;
    if (right.next >= 0) symbols[right.next].previous = top.position;
    if (left.previous >= 0) push(left.previous);
    push(top.position);
  }
}

}  // namespace micromix
