// UTF-8 validation and the lossy reading of bytes, against the examples of Unicode 3.9.
#include "micromix/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include "micromix/base/error.h"

namespace micromix {
namespace {

std::string lossy(std::string_view bytes, size_t chunk) {
  LossyUtf8 reader;
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += chunk) reader.push(bytes.substr(at, chunk), text);
  reader.finish(text);
  return text;
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(first_invalid_utf8(""), 0u);
  EXPECT_EQ(first_invalid_utf8("a\u00e9\u4e2d\U0010ffff"), 10u);
  EXPECT_EQ(first_invalid_utf8("ab\xFFz"), 2u);
  EXPECT_EQ(first_invalid_utf8("a\xC3"), 1u);             // cut short
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0u);          // overlong
  EXPECT_EQ(first_invalid_utf8("\xE0\x9F\xBF"), 0u);      // overlong
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0u);      // a surrogate
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(first_invalid_utf8("\x80"), 0u);
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string r(kReplacementCharacter);
  const std::pair<std::string, std::string> cases[] = {
      {"a\xF1\x80\x80\xE1\x80\xC2z", "a" + r + r + r + "z"},  // Unicode 3.9, Table 3-11
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xED\xA0\x80", r + r + r},
      {"\xF4\x91\x92\x93\xFF", r + r + r + r + r},
      {"\xF0\x9F\x98", r},
      {"\xE2\x82\xAC\xE2\x82", "\u20ac" + r},
  };
  for (const auto& [bytes, expected] : cases) {
    for (const size_t chunk : {1, 2, 3, 100}) EXPECT_EQ(lossy(bytes, chunk), expected);
  }
}

TEST(Utf8, CodePointsRoundTrip) {
  for (const char32_t c : {0x0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text = "x";
    append_utf8(text, c);
    EXPECT_EQ(first_invalid_utf8(text), text.size());
    EXPECT_EQ(utf8_code_point(text, 1), c);
    EXPECT_EQ(utf8_previous(text, text.size()), 1u);
  }
}

TEST(Utf8, ErrorNamesTheOffset) {
  try {
    require_utf8("abc\xFF", "text");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "text: byte 3: found 0xFF, expected valid UTF-8");
  }
}

}  // namespace
}  // namespace micromix
