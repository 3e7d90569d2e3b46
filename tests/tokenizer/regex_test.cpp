// Patterns mean what they mean in Oniguruma, or are refused.
#include "micromix/tokenizer/regex.h"

#include <gmock/gmock.h>

#include "tests/tokenizer/temporary_model.h"

namespace micromix {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<std::string> found;
  Regex(pattern, "file", "field").for_each_match(text, [&](size_t begin, size_t end) {
    found.push_back(text.substr(begin, end - begin));
  });
  return found;
}

std::string refusal(const std::string& pattern) {
  return error_of([&] { Regex(pattern, "file", "field"); });
}

TEST(Regex, WhiteSpaceIsOnigurumas) {
  EXPECT_THAT(matches(R"(\s+)", "a \t\x0b\u0085\u3000b\u180e\u200bc"),
              ElementsAre(" \t\x0b\u0085\u3000"));
  EXPECT_THAT(matches(R"([^\s]+)", "a\u180e b"), ElementsAre("a\u180e", "b"));
  EXPECT_THAT(matches(R"(\s+(?!\S))", "a   b  "), ElementsAre("  ", "  "));
  EXPECT_THAT(matches(R"(\v)", "\n\x0b"), ElementsAre("\x0b"));
}

TEST(Regex, CaseFoldingReachesBeyondAscii) {
  EXPECT_THAT(matches("(?i:'s|'k)", "'S '\u017f '\u212a"), ElementsAre("'S", "'\u017f", "'\u212a"));
}

TEST(Regex, CaretAndDollarAreOfLines) {
  EXPECT_THAT(matches("^a$", "a\nb\na"), ElementsAre("a", "a"));
}

TEST(Regex, EmptyMatchesDoNotTouchThePreviousOne) {
  EXPECT_THAT(matches("b*", "\u00e9bb\u00e9"), ElementsAre("", "bb", ""));
  EXPECT_THAT(matches("x", ""), IsEmpty());
}

TEST(Regex, RefusesWhatTheDialectsReadDifferently) {
  for (const char* construct : {R"(\w+)", R"(\W)", R"(a\b)", R"(\h)", R"(\R)", R"([\w])", "[a[bc]]",
                                "[a&&b]", "[[:alpha:]]", "(?m:.)", "a(?i)b", R"(\p{N}{1,3}+)",
                                "a{,3}", R"(\xE9)", "(*UCP)a", "(?#x)a", "[]a]"}) {
    EXPECT_THAT(refusal(construct), HasSubstr("file: field: found the unsupported regex construct"))
        << construct;
  }
  EXPECT_EQ(refusal(R"((?i)'s|[\]\\\-a-z^]|\p{^L}|\p{L}+|\x{41}|\x41|(?<!a)(?<=b)(?>c){2,3})"),
            "no error");
}

TEST(Regex, NamesAPatternThatDoesNotCompile) {
  EXPECT_THAT(refusal("a("), HasSubstr("file: field: found a regex that does not compile"));
  EXPECT_THAT(refusal(R"(\p{Nonsense})"), HasSubstr("does not compile"));
  EXPECT_THAT(refusal("[a"), HasSubstr("does not compile"));
}

TEST(Regex, BacktrackingWithoutEndIsAnError) {
  const std::string text(64, 'a');
  EXPECT_THAT(error_of([&] { matches("(a|aa)+$(?<=b)", text); }), HasSubstr("matching failed"));
}

TEST(Regex, DeepRecursionIsNotAFailure) {
  const std::string text(100'000, 'a');
  EXPECT_THAT(matches("(?:a|b)+", text), ElementsAre(text));
}

TEST(Regex, WordCharacters) {
  for (const char32_t c :
       {U'a', U'Z', U'_', U'0', U'\u00e9', U'\u0301', U'\u0663', U'\u203f', U'\u200d'}) {
    EXPECT_TRUE(is_word_character(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {U' ', U'-', U'@', U'[', U'\u00bd', U'\u2014', U'\u20ac'}) {
    EXPECT_FALSE(is_word_character(c)) << static_cast<uint32_t>(c);
  }
}

}  // namespace
}  // namespace micromix
