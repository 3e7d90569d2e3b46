// Regular expressions as Hugging Face tokenizers mean them (Oniguruma, Ruby syntax), run by PCRE2.
//
// The two dialects agree on nearly all that tokenizers use. Where they do not, the pattern is
// rewritten (\s, \S, \v: PCRE2's \s has U+180E, Oniguruma's is White_Space) or refused by name
// (\w, \b, \h, nested classes, inline flags past the start, {m,n}+): never matched differently.
// Character properties are those of PCRE2's Unicode version.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace micromix {

class Regex {
 public:
  // Throws Error("FILE: FIELD: ...") where PATTERN does not compile or is refused. Valid UTF-8.
  Regex(const std::string& pattern, const std::string& file, const std::string& field);

  // Calls MATCH(begin, end) for each match in TEXT, left to right, not overlapping; an empty match
  // that touches the previous one is skipped. TEXT must be valid UTF-8. Throws Error where the
  // pattern backtracks beyond any linear amount of work, instead of hanging.
  void for_each_match(std::string_view text,
                      const std::function<void(size_t begin, size_t end)>& match) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  std::string where_;
};

// Whether CODE_POINT is a word character: Alphabetic, Mark, Decimal_Number, Connector_Punctuation
// or Join_Control (UTS 18's \w).
bool is_word_character(char32_t code_point);

}  // namespace micromix
