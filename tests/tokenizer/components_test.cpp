// Options that the golden tokenizers do not reach.
#include "tests/tokenizer/temporary_model.h"

namespace micromix {
namespace {

using Ids = std::vector<TokenId>;

Json split(const std::string& pattern, const std::string& behavior, bool invert) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", behavior},
          {"invert", invert}};
}

Ids encode_with(const std::string& key, const Json& component, const std::string& text) {
  Json json = tiny_tokenizer();
  json[key] = component;
  return load_json(json)->encode(text, false);
}

TEST(Components, SplitBehaviors) {
  EXPECT_EQ(encode_with("pre_tokenizer", split("b", "Isolated", false), "abab"), (Ids{0, 1, 0, 1}));
  EXPECT_EQ(encode_with("pre_tokenizer", split("b", "Removed", false), "abab"), (Ids{0, 0}));
  EXPECT_EQ(encode_with("pre_tokenizer", split("ab", "Removed", true), "abbab"), (Ids{2, 2}));
  EXPECT_EQ(encode_with("pre_tokenizer", split("ab", "Isolated", true), "abbab"), (Ids{2, 1, 2}));
}

TEST(Components, ReplaceByRegex) {
  const Json replace = {{"type", "Replace"}, {"pattern", {{"Regex", "[xy]+"}}}, {"content", "b"}};
  EXPECT_EQ(encode_with("normalizer", replace, "axyya"), (Ids{2, 0}));
}

// A character that is no token and has no fallback disappears, as in Hugging Face tokenizers.
TEST(Components, UnknownCharacters) {
  Json json = tiny_tokenizer();
  EXPECT_EQ(load_json(json)->encode("azzb", false), (Ids{2}));
  json["model"]["vocab"]["?"] = 5;
  json["model"]["unk_token"] = "?";
  EXPECT_EQ(load_json(json)->encode("azzb", false), (Ids{0, 5, 5, 1}));
  json["model"]["fuse_unk"] = true;
  EXPECT_EQ(load_json(json)->encode("azzb", false), (Ids{0, 5, 1}));
  json["model"]["byte_fallback"] = true;
  json["model"]["vocab"]["<0x7A>"] = 6;
  EXPECT_EQ(load_json(json)->encode("azyzb", false), (Ids{0, 6, 6, 5, 1}));
}

TEST(Components, MergesPreferTheLowestRankThenTheLeftmost) {
  Json json = tiny_tokenizer();
  json["model"]["vocab"] = {{"a", 0}, {"aa", 1}, {"b", 2}, {"ab", 3}};
  json["model"]["merges"] = {"a a", "a b"};
  EXPECT_EQ(load_json(json)->encode("aaab", false), (Ids{1, 3}));
  json["model"]["merges"] = {"a b", "a a"};
  EXPECT_EQ(load_json(json)->encode("aaab", false), (Ids{1, 3}));
  EXPECT_EQ(load_json(json)->encode("aab", false), (Ids{0, 3}));
  EXPECT_EQ(load_json(json)->encode("aaa", false), (Ids{1, 0}));
}

TEST(Components, WithoutADecoderTokensAreJoinedBySpaces) {
  Json json = tiny_tokenizer();
  json["decoder"] = nullptr;
  EXPECT_EQ(load_json(json)->decode(Ids{0, 3, 4}), "a abb <s>");
}

TEST(Components, StripWithoutFuseIsOfEachToken) {
  Json json = tiny_tokenizer();
  json["decoder"] = {{"type", "Strip"}, {"content", "a"}, {"start", 1}, {"stop", 0}};
  EXPECT_EQ(load_json(json)->decode(Ids{2, 3, 0, 1}), "bbbb");
  json["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, json["decoder"]}}};
  EXPECT_EQ(load_json(json)->decode(Ids{2, 3, 0, 1}), "babbab");
}

TEST(Components, NestedPostProcessorsWrap) {
  Json json = tiny_tokenizer();
  const Json wrap = Json::parse(R"({"type": "TemplateProcessing", "pair": [],
      "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"x": {"id": "x", "ids": [1, 4], "tokens": ["b", "<s>"]}}})");
  json["post_processor"] = {{"type", "Sequence"}, {"processors", {wrap, wrap}}};
  EXPECT_EQ(load_json(json)->encode("a", true), (Ids{1, 4, 1, 4, 0}));
  EXPECT_EQ(load_json(json)->encode("a", false), (Ids{0}));
}

TEST(Components, SparseIdsCountToTheLargest) {
  Json json = tiny_tokenizer();
  json["added_tokens"][0]["id"] = INT32_MAX;
  const auto tokenizer = load_json(json);
  EXPECT_EQ(tokenizer->vocabulary_size(), int64_t{1} << 31);
  EXPECT_EQ(tokenizer->decode(Ids{INT32_MAX}), "<s>");
  EXPECT_THROW(tokenizer->decode(Ids{4}), Error);
}

}  // namespace
}  // namespace micromix
