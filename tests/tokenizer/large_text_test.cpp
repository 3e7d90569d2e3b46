// A megabyte without a line break must take about as long as a megabyte of prose: no quadratic
// merge loop, backtracking, mark ordering or re-validation. A hang here is the failure.
#include <chrono>
#include <random>

#include "micromix/tokenizer/normalizer.h"
#include "tests/tokenizer/temporary_model.h"

namespace micromix {
namespace {

constexpr size_t kMegabyte = 1 << 20;
// Seconds; each takes well below one in an optimized build. Sanitizers and busy machines are
// slower.
constexpr double kLimit = 60;

std::string repeat(const std::string& unit) {
  std::string text;
  while (text.size() < kMegabyte) text += unit;
  return text;
}

std::string random_words(const std::string& alphabet) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < kMegabyte) text += alphabet[random() % alphabet.size()];
  return text;
}

std::vector<std::string> large_texts() {
  return {repeat("a"),
          repeat(" "),
          repeat(" ").append("x"),
          repeat("\n"),
          repeat(" \n"),
          repeat("\r\n\t ").append("x"),
          repeat("\u3000"),
          repeat("1"),
          repeat("!"),
          repeat("'"),
          repeat("\u4e2d"),
          repeat("\U0001f9a6"),
          repeat("the quick brown fox"),
          repeat("<|im_start"),
          repeat("<s>"),
          repeat(" <s>"),
          std::string(kMegabyte, '\0'),
          random_words("abcdefghijklmnopqrstuvwxyz"),
          random_words("etaoinshr"),
          random_words("ab 1\n'.")};
}

class LargeText : public testing::TestWithParam<const char*> {};

TEST_P(LargeText, RoundTripsWithoutHanging) {
  const auto tokenizer =
      Tokenizer::load(std::filesystem::path(MICROMIX_TEST_DATA) / "tokenizers" / GetParam());
  // GPT-2's and SentencePiece's put a space before text; the decoders but GPT-2's take it off
  // again.
  const std::string name = GetParam();
  for (const std::string& text : large_texts()) {
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer->encode(text, false);
    std::string decoded = tokenizer->decode(ids);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const bool adds_space = name == "gpt2-style" && text.front() != ' ';
    if (adds_space) decoded.erase(0, 1);
    if (text.find("<s>") == text.npos) {
      EXPECT_TRUE(decoded == text) << "text beginning " << Json(text.substr(0, 40));
    }
    EXPECT_LT(seconds.count(), kLimit) << "text beginning " << Json(text.substr(0, 40));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LargeText,
                         testing::Values("qwen2-style", "llama3-style", "gpt2-style",
                                         "llama2-style", "sentencepiece"),
                         [](const auto& shape) {
                           const std::string name = shape.param;
                           return name.substr(0, name.find('-'));
                         });

TEST(LargeText, NfcOrdersARunOfMarks) {
  std::string text = repeat("\u0301\u0316");
  text.insert(0, 1, 'x');
  const size_t pairs = (text.size() - 1) / 4;
  const std::string normalized = to_nfc(text);
  EXPECT_TRUE(normalized.starts_with("x\u0316\u0316"));
  EXPECT_TRUE(normalized.ends_with("\u0301\u0301"));
  EXPECT_EQ(normalized.find("\u0301"), 1 + 2 * pairs);
}

TEST(LargeText, StreamingIsLinear) {
  const auto tokenizer =
      Tokenizer::load(std::filesystem::path(MICROMIX_TEST_DATA) / "tokenizers/llama2-style");
  const auto ids = tokenizer->encode(repeat("\U0001f9a6"), false);  // one run of byte tokens
  StreamDecoder decoder(*tokenizer);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  text += decoder.finish();
  EXPECT_TRUE(text == tokenizer->decode(ids));
}

}  // namespace
}  // namespace micromix
