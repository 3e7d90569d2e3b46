// UTF-8 as the tokenizers need it: validation at the boundary, characters of text known to be
// valid, and the lossy reading of bytes that tokens spell out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace micromix {

// The offset of the first byte that does not start a well-formed character (Unicode 3.9, Table 3-7:
// no overlong forms, no surrogates, nothing above U+10FFFF), or TEXT.size() where all are.
size_t first_invalid_utf8(std::string_view text);

// Throws Error naming SOURCE and the byte offset where TEXT is not UTF-8.
void require_utf8(std::string_view text, const std::string& source);

// Bytes of the character that starts with LEAD, in valid UTF-8.
inline size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The start of the character that ends at END. Valid UTF-8, END > 0.
size_t utf8_previous(std::string_view text, size_t end);

// The code point of the character at AT, in valid UTF-8.
char32_t utf8_code_point(std::string_view text, size_t at);

void append_utf8(std::string& text, char32_t code_point);

// Unicode's White_Space property.
bool is_white_space(char32_t code_point);

// Turns a stream of bytes into text: each maximal ill-formed subpart becomes U+FFFD (Unicode 3.9,
// "U+FFFD substitution of maximal subparts"). The bytes of a character still incomplete wait.
class LossyUtf8 {
 public:
  // Appends to OUT the text that BYTES complete.
  void push(std::string_view bytes, std::string& out);
  // The incomplete character, if one waits, becomes one U+FFFD.
  void finish(std::string& out);

 private:
  std::string waiting_;  // at most 3 bytes, the start of a well-formed character
};

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace micromix
