// SentencePiece's way with spaces: each becomes a mark, "▁", and one is put before the text. Both a
// pre-tokenizer and a decoder have these options.
#pragma once

#include <string>
#include <string_view>

#include "micromix/base/json.h"

namespace micromix {

class Metaspace {
 public:
  // Throws Error where COMPONENT has options that are not supported.
  explicit Metaspace(const JsonObject& component);

  // TEXT with its spaces marked, and a mark before it where the scheme wants one and there is none.
  std::string mark(std::string_view text, bool at_start) const;
  // TOKEN with its marks turned into spaces; those of the first token are dropped where one is put
  // before the text.
  std::string unmark(std::string_view token, bool is_first) const;

  bool splits() const { return split_; }
  const std::string& replacement() const { return replacement_; }

 private:
  enum class Prepend { kAlways, kFirst, kNever };

  std::string replacement_;  // one character
  Prepend prepend_ = Prepend::kAlways;
  bool split_;
};

}  // namespace micromix
