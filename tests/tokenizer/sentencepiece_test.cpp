// tokenizer.model with the options of tokenizer_config.json and added_tokens.json.
#include <gmock/gmock.h>

#include "micromix/base/file.h"
#include "tests/tokenizer/temporary_model.h"

namespace micromix {
namespace {

using testing::HasSubstr;
using Ids = std::vector<TokenId>;

constexpr TokenId kBos = 1;
constexpr TokenId kEos = 2;
constexpr TokenId kPieces = 900;

class SentencePiece : public testing::Test {
 protected:
  SentencePiece() {
    model_.write("tokenizer.model",
                 read_file(MICROMIX_TEST_DATA "/tokenizers/sentencepiece/tokenizer.model"));
  }

  std::string load_error() const {
    return error_of([&] { model_.load(); });
  }

  TemporaryModel model_;
};

TEST_F(SentencePiece, BosByDefault) {
  const auto tokenizer = model_.load();
  EXPECT_EQ(tokenizer->vocabulary_size(), kPieces);
  EXPECT_EQ(tokenizer->encode("", true), Ids{kBos});
  EXPECT_EQ(tokenizer->encode("</s>", true), (Ids{kBos, kEos}));
}

TEST_F(SentencePiece, ConfigChoosesSpecialTokens) {
  model_.write("tokenizer_config.json",
               R"({"add_bos_token": false, "add_eos_token": true, "bos_token": "<s>",
                   "eos_token": {"__type": "AddedToken", "content": "</s>"}})");
  EXPECT_EQ(model_.load()->encode("", true), Ids{kEos});
}

TEST_F(SentencePiece, AddedTokens) {
  model_.write("added_tokens.json", R"({"<extra>": 900, "<mask>": 901})");
  model_.write("tokenizer_config.json",
               R"({"added_tokens_decoder": {
                    "1": {"content": "<s>", "special": true},
                    "901": {"content": "<mask>", "lstrip": true, "rstrip": false,
                            "normalized": false, "single_word": false, "special": true}}})");
  const auto tokenizer = model_.load();
  EXPECT_EQ(tokenizer->vocabulary_size(), 902);
  EXPECT_EQ(tokenizer->encode("<extra>  <mask><s>", false), (Ids{900, 901, 1}));
  EXPECT_EQ(tokenizer->decode(Ids{900, 901, 1}), "<extra><mask><s>");
}

// LlamaTokenizer's legacy: a space before every stretch of text; without it, before the first only.
TEST_F(SentencePiece, LegacyPutsASpaceAfterSpecialTokensToo) {
  const auto legacy = model_.load();
  EXPECT_EQ(legacy->decode(legacy->encode("a<s>b", false)), "a<s> b");
  model_.write("tokenizer_config.json", R"({"legacy": false})");
  const auto current = model_.load();
  EXPECT_EQ(current->decode(current->encode("a<s>b", false)), "a<s>b");
  EXPECT_EQ(current->encode("a b", false), legacy->encode("a b", false));
}

TEST_F(SentencePiece, MalformedFilesAreNamed) {
  model_.write("added_tokens.json", R"({"<extra>": 5})");
  EXPECT_THAT(load_error(), HasSubstr("added_tokens.json: <extra>: found"));
  model_.write("added_tokens.json", R"({"<s>": 900})");
  EXPECT_THAT(load_error(), HasSubstr("clashes"));
  model_.write("added_tokens.json", "{}");
  model_.write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "y"}}})");
  EXPECT_THAT(load_error(), HasSubstr("tokenizer_config.json: added_tokens_decoder.x"));
  model_.write("tokenizer_config.json", R"({"bos_token": "<nope>"})");
  EXPECT_THAT(load_error(), HasSubstr("tokenizer_config.json: bos_token: found \"<nope>\""));
  model_.write("tokenizer_config.json", "{}");
  model_.write("tokenizer.model", "");
  EXPECT_THAT(load_error(), HasSubstr("tokenizer.model: model: found an empty file"));
  model_.write("tokenizer.model", "not a model");
  EXPECT_THAT(load_error(), HasSubstr("tokenizer.model: model: found"));
}

TEST_F(SentencePiece, TextThatIsNotUtf8) {
  const auto tokenizer = model_.load();
  EXPECT_EQ(error_of([&] { tokenizer->encode("ab\xC3(", false); }),
            "text: byte 2: found 0xC3, expected valid UTF-8");
}

}  // namespace
}  // namespace micromix
