// Malformed and unsupported tokenizer.json files: one Error that names the file and the field.
#include <functional>

#include <gmock/gmock.h>

#include "tests/tokenizer/temporary_model.h"

namespace micromix {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string error_after(const std::function<void(Json&)>& change) {
  Json json = tiny_tokenizer();
  change(json);
  return error_of([&] { load_json(json); });
}

std::string error_of_file(const std::string& content) {
  TemporaryModel model;
  model.write("tokenizer.json", content);
  return error_of([&] { model.load(); });
}

// Expects an Error that names the file and has PARTS, when the tiny tokenizer is changed.
void expect_error(const std::function<void(Json&)>& change, const std::string& field,
                  const std::string& found = "") {
  EXPECT_THAT(error_after(change), AllOf(HasSubstr("tokenizer.json: " + field), HasSubstr(found)));
}

TEST(Malformed, TheTinyTokenizerItselfLoads) {
  const auto tokenizer = load_json(tiny_tokenizer());
  EXPECT_EQ(tokenizer->encode("abbab<s>", true), (std::vector<TokenId>{3, 2, 4}));
}

TEST(Malformed, Files) {
  EXPECT_THAT(error_of_file(""), HasSubstr("tokenizer.json: JSON"));
  EXPECT_THAT(error_of_file("{"), HasSubstr("tokenizer.json: JSON"));
  EXPECT_THAT(error_of_file("[]"), HasSubstr("tokenizer.json: root"));
  EXPECT_THAT(error_of_file("{}"), HasSubstr("tokenizer.json: model"));
  EXPECT_THAT(error_of_file("{\"a\": \"\xFF\"}"), HasSubstr("tokenizer.json: JSON"));
  EXPECT_THAT(error_of_file(std::string(100'000, '[')), HasSubstr("nesting deeper"));
  EXPECT_THAT(error_of([] { TemporaryModel().load(); }), HasSubstr("neither tokenizer.json nor"));
}

TEST(Malformed, VocabularyIds) {
  const auto with_id = [](Json id) {
    return [id](Json& json) { json["model"]["vocab"]["a"] = id; };
  };
  expect_error(with_id(-1), "model.vocab.a", "found -1");
  expect_error(with_id(int64_t{1} << 31), "model.vocab.a", "found 2147483648");
  expect_error(with_id(UINT64_MAX), "model.vocab.a");
  expect_error(with_id(1.5), "model.vocab.a", "found 1.5");
  expect_error(with_id("0"), "model.vocab.a");
  expect_error(with_id(1), "model.vocab.b", "id 1, which \"a\" has too");
  expect_error([](Json& json) { json["model"]["vocab"] = Json::array(); }, "model.vocab");
  std::string twice = tiny_tokenizer().dump();
  twice.replace(twice.find("\"a\":0"), 5, "\"a\":0,\"a\":9");
  EXPECT_THAT(error_of_file(twice), HasSubstr("the key twice"));
}

TEST(Malformed, Merges) {
  const auto with_merge = [](Json merge) {
    return [merge](Json& json) { json["model"]["merges"].push_back(merge); };
  };
  expect_error(with_merge({"a", "z"}), "model.merges[2]", "\"z\", which is not in vocab");
  expect_error(with_merge({"b", "a"}), "model.merges[2]", "\"ba\", which is not in vocab");
  expect_error(with_merge("a z"), "model.merges[2]", "\"z\", which is not in vocab");
  expect_error(with_merge("ab"), "model.merges[2]");
  expect_error(with_merge("a b c"), "model.merges[2]");
  expect_error(with_merge({"a", "b", "c"}), "model.merges[2]");
  expect_error(with_merge(5), "model.merges[2]");
  expect_error([](Json& json) { json["model"]["merges"] = "a b"; }, "model.merges");
}

TEST(Malformed, AddedTokens) {
  const auto with_token = [](TokenId id, const std::string& content) {
    return [=](Json& json) {
      json["added_tokens"].push_back({{"id", id}, {"content", content}, {"special", true}});
    };
  };
  expect_error(with_token(4, "<t>"), "added_tokens[1].id", "4 for \"<t>\", which clashes");
  expect_error(with_token(0, "<t>"), "added_tokens[1].id", "clashes");
  expect_error(with_token(9, "a"), "added_tokens[1].id", "clashes");
  expect_error(with_token(9, "<s>"), "added_tokens[1].id", "clashes");
  expect_error(with_token(4, "<s>"), "added_tokens[1].content", "which another token also matches");
  expect_error(with_token(-1, "<t>"), "added_tokens[1].id", "found -1");
  expect_error(with_token(9, ""), "added_tokens[1].content");
  expect_error([](Json& json) { json["added_tokens"][0]["glue"] = true; }, "added_tokens[0].glue");
  expect_error([](Json& json) { json["added_tokens"][0]["lstrip"] = 1; }, "added_tokens[0].lstrip");
}

TEST(Malformed, UnsupportedPartsAreNamed) {
  const auto with = [](const std::string& pointer, Json value) {
    return [=](Json& json) { json[Json::json_pointer(pointer)] = value; };
  };
  expect_error(with("/version", "2.0"), "version");
  expect_error(with("/truncation", {{"max_length", 8}}), "truncation");
  expect_error(with("/padding", {{"strategy", "BatchLongest"}}), "padding");
  expect_error(with("/chat", 1), "chat");
  expect_error(with("/normalizer", {{"type", "Lowercase"}}), "normalizer.type", "\"Lowercase\"");
  expect_error(with("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}}),
               "normalizer.normalizers[0].type", "\"NFKC\"");
  expect_error(with("/pre_tokenizer", {{"type", "Digits"}}), "pre_tokenizer.type", "\"Digits\"");
  expect_error(with("/pre_tokenizer", {{"type", "Split"},
                                       {"pattern", {{"String", " "}}},
                                       {"behavior", "MergedWithNext"},
                                       {"invert", false}}),
               "pre_tokenizer.behavior", "\"MergedWithNext\"");
  expect_error(with("/pre_tokenizer", {{"type", "Split"},
                                       {"pattern", {{"Regex", "(a"}}},
                                       {"behavior", "Isolated"},
                                       {"invert", false}}),
               "pre_tokenizer.pattern.Regex", "does not compile");
  expect_error(with("/post_processor", {{"type", "RobertaProcessing"}}), "post_processor.type");
  expect_error(with("/decoder", {{"type", "WordPiece"}}), "decoder.type", "\"WordPiece\"");
  expect_error(with("/model/type", "Unigram"), "model.type", "\"Unigram\"");
  expect_error(with("/model/dropout", 0.1), "model.dropout");
  expect_error(with("/model/continuing_subword_prefix", "##"), "model.continuing_subword_prefix");
  expect_error(with("/model/end_of_word_suffix", "</w>"), "model.end_of_word_suffix");
  expect_error(with("/model/unk_token", "<unk>"), "model.unk_token");
  expect_error(with("/model/novelty", true), "model.novelty");
}

// Also where the model's class normalizes its own way.
TEST(Malformed, UnsupportedNormalizerOfQwen) {
  TemporaryModel model;
  Json json = tiny_tokenizer();
  json["normalizer"] = {{"type", "Lowercase"}};
  model.write("tokenizer.json", json.dump());
  model.write("config.json", R"({"model_type": "qwen2"})");
  EXPECT_THAT(error_of([&] { model.load(); }), HasSubstr("normalizer.type"));
}

TEST(Malformed, Templates) {
  const auto with = [](const std::string& special_tokens, const std::string& single) {
    return [=](Json& json) {
      json["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", Json::parse(single)},
                                {"special_tokens", Json::parse(special_tokens)}};
    };
  };
  const std::string token = R"({"SpecialToken": {"id": "<s>", "type_id": 0}})";
  const std::string text = R"({"Sequence": {"id": "A", "type_id": 0}})";
  expect_error(with("{}", "[" + token + "," + text + "]"), "post_processor.special_tokens.<s>");
  expect_error(with(R"({"<s>": {"ids": [77]}})", "[" + token + "," + text + "]"),
               "post_processor.special_tokens.<s>.ids", "found 77");
  expect_error(with(R"({"<s>": {"ids": [4]}})", "[" + token + "]"), "post_processor.single");
  expect_error(with("{}", "[" + text + "," + text + "]"), "post_processor.single[1].Sequence");
}

TEST(Malformed, TextThatIsNotUtf8) {
  const auto tokenizer = load_json(tiny_tokenizer());
  EXPECT_EQ(error_of([&] { tokenizer->encode("ab\xC3(", false); }),
            "text: byte 2: found 0xC3, expected valid UTF-8");
}

}  // namespace
}  // namespace micromix
