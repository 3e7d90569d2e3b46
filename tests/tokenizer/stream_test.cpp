// Decoding token by token: what waits, and that nothing is lost or changed.
#include <random>

#include "tests/tokenizer/golden.h"
#include "tests/tokenizer/temporary_model.h"

namespace micromix {
namespace {

std::filesystem::path style(const std::string& name) {
  return std::filesystem::path(MICROMIX_TEST_DATA) / "tokenizers" / name;
}

TEST(Stream, AnIncompleteCharacterWaits) {
  const auto tokenizer = Tokenizer::load(style("llama3-style"));
  const auto ids = tokenizer->encode("\U0001f9a6!", false);  // four byte tokens and one
  ASSERT_EQ(ids.size(), 5u);
  StreamDecoder decoder(*tokenizer);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(decoder.push(ids[i]), "");
  EXPECT_EQ(decoder.push(ids[3]), "\U0001f9a6");
  EXPECT_EQ(decoder.push(ids[4]), "!");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(Stream, AnUnfinishedCharacterBecomesOneReplacement) {
  const auto tokenizer = Tokenizer::load(style("llama3-style"));
  const auto ids = tokenizer->encode("\U0001f9a6", false);
  StreamDecoder decoder(*tokenizer);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(decoder.push(ids[i]), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
}

// A run of byte tokens with anything ill-formed in it is one U+FFFD a token, also where its
// beginning was a whole character.
TEST(Stream, ARunOfByteTokensWaitsForItsEnd) {
  const auto tokenizer = Tokenizer::load(style("llama2-style"));
  const auto otter = tokenizer->encode("\U0001f9a6", false);
  ASSERT_EQ(otter.size(), 5u);  // "▁" and four bytes
  const TokenId x = tokenizer->encode("x", false).back();
  StreamDecoder decoder(*tokenizer);
  for (const TokenId id : otter) EXPECT_EQ(decoder.push(id), "");
  EXPECT_EQ(decoder.push(otter[1]), "");
  EXPECT_EQ(decoder.push(x), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDx");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(Stream, EqualsDecodeOfAnyIds) {
  for (const char* name : {"qwen2-style", "llama3-style", "gpt2-style", "llama2-style",
                           "mistral-style", "metaspace-style", "sentencepiece"}) {
    const auto tokenizer = Tokenizer::load(style(name));
    std::mt19937 random(3);
    for (int i = 0; i < 300; ++i) {
      std::vector<TokenId> ids(random() % 30);
      for (TokenId& id : ids) id = random() % (i % 2 ? 259 : tokenizer->vocabulary_size());
      EXPECT_EQ(stream(*tokenizer, ids), tokenizer->decode(ids)) << name;
    }
  }
}

TEST(Stream, UnknownIdsAreErrors) {
  const auto tokenizer = load_json(tiny_tokenizer());
  EXPECT_EQ(tokenizer->vocabulary_size(), 5);
  StreamDecoder decoder(*tokenizer);
  for (const TokenId id : {-1, 5, INT32_MAX}) {
    EXPECT_THROW(decoder.push(id), Error);
    EXPECT_THROW(tokenizer->decode(std::vector<TokenId>{0, id}), Error);
  }
}

}  // namespace
}  // namespace micromix
