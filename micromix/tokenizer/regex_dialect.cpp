#include "micromix/tokenizer/regex_dialect.h"

#include <string_view>

#include "micromix/base/error.h"

namespace micromix {
namespace {

bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& file, const std::string& field)
      : pattern_(pattern), file_(file), field_(field) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        escape();
      } else if (in_class_) {
        class_member();
      } else {
        outside_class();
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    throw_invalid(file_, field_,
                  fmt::format("the unsupported regex construct {} at byte {}", construct, at_),
                  "constructs that mean the same in Oniguruma and PCRE2");
  }

  std::string_view rest() const { return pattern_.substr(at_); }
  bool next_is(std::string_view text) const { return rest().starts_with(text); }

  void copy(size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += std::min(count, pattern_.size() - at_);
  }

  void replace(size_t count, std::string_view with) {
    out_ += with;
    at_ += count;
  }

  void escape() {
    if (next_is("\\s")) return replace(2, "\\p{White_Space}");
    if (next_is("\\S")) return replace(2, "\\P{White_Space}");
    if (next_is("\\v")) return replace(2, "\\x0B");  // PCRE2's \v is all vertical space
    if (next_is("\\p{") || next_is("\\P{")) return copy(property_length());
    if (at_ + 1 == pattern_.size()) return copy(1);
    const char c = pattern_[at_ + 1];
    if (c == 'x') return hexadecimal();
    const std::string_view same = in_class_ ? "dDrntfae" : "dDrntfaeAzZ";
    if (is_letter_or_digit(c) && same.find(c) == std::string_view::npos) {
      refuse(pattern_.substr(at_, 2));
    }
    copy(2);
  }

  size_t property_length() const {
    const size_t close = rest().find('}');
    if (close == std::string_view::npos) refuse("\\p{ without }");
    return close + 1;
  }

  // \xHH from 80 on is one byte of a character in Oniguruma and a code point in PCRE2.
  void hexadecimal() {
    const bool ascii = at_ + 3 < pattern_.size() && pattern_[at_ + 2] >= '0' &&
                       pattern_[at_ + 2] <= '7' && is_letter_or_digit(pattern_[at_ + 3]);
    if (!next_is("\\x{") && !ascii) refuse("\\x");
    copy(2);
  }

  void class_member() {
    if (pattern_[at_] == '[') refuse("[ inside a character class");
    if (next_is("&&")) refuse("&& inside a character class");
    if (pattern_[at_] == ']') in_class_ = false;
    copy(1);
  }

  void outside_class() {
    if (pattern_[at_] == '[') return open_class();
    if (next_is("(?")) return group();
    if (next_is("(*")) refuse("(*");
    if (next_is("{,")) refuse("{,n}");
    if (next_is("}+")) refuse("{m,n}+");  // possessive in PCRE2, repeated in Oniguruma
    copy(1);
  }

  void open_class() {
    in_class_ = true;
    copy(next_is("[^") ? 2 : 1);
    if (next_is("]")) refuse("] first in a character class");
  }

  void group() {
    for (const std::string_view same :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (next_is(same)) return copy(same.size());
    }
    // Further on, Oniguruma's inline flag holds for all later alternatives of its group.
    if (next_is("(?i)") && at_ == 0) return copy(4);
    refuse(rest().substr(0, std::min<size_t>(rest().find_first_of(":)") + 1, 8)));
  }

  std::string_view pattern_;
  const std::string& file_;
  const std::string& field_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string pcre2_from_oniguruma(const std::string& pattern, const std::string& file,
                                 const std::string& field) {
  return Translator(pattern, file, field).run();
}

}  // namespace micromix
