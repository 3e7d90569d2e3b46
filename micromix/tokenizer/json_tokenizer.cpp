#include "micromix/tokenizer/json_tokenizer.h"

#include "micromix/base/error.h"
#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/decoded_tokens.h"

namespace micromix {

JsonTokenizer::JsonTokenizer(const std::filesystem::path& file, const ModelClass& model_class)
    : file_(file.string()) {
  Json json = read_json(file);
  if (model_class.nfc && json.is_object()) {
    Normalizer::parse(JsonObject(json, file_));  // one that is not known is refused all the same
    json["normalizer"] = {{"type", "NFC"}};
  }
  parse(JsonObject(json, file_));
  file_tokens_ = vocabulary_.size();
  add_class_tokens(model_class);
}

void JsonTokenizer::parse(const JsonObject& root) {
  require_known_keys(root, {"version", "truncation", "padding", "added_tokens", "normalizer",
                            "pre_tokenizer", "post_processor", "decoder", "model"});
  if (root.string_or("version", "1.0") != "1.0") unsupported(root, "version", "1.0");
  for (const char* key : {"truncation", "padding"}) {
    if (root.has(key)) unsupported(root, key, "null");
  }
  normalizer_ = Normalizer::parse(root);
  pre_tokenizer_ = PreTokenizer::parse(root);
  decoder_ = Decoder::parse(root);
  model_ = std::make_unique<Bpe>(root.object("model"));
  vocabulary_ = model_->vocabulary();
  if (root.has("added_tokens")) {
    for_each_object(root, "added_tokens", [&](const JsonObject& entry) {
      add_token(parse_added_token(entry, parse_token_id(entry, "id")), entry);
    });
  }
  special_ = parse_post_processor(root, vocabulary_);
}

void JsonTokenizer::add_token(const AddedToken& token, const JsonObject& entry) {
  if (token.content.empty()) entry.fail("content", "the empty string", "text");
  if (vocabulary_.find(token.content) != token.id && !vocabulary_.add(token.content, token.id)) {
    entry.fail("id",
               fmt::format("{} for {}, which clashes with another token", token.id,
                           describe(Json(token.content))),
               "one id a token, and one token an id");
  }
  std::string looked_for = token.content;
  if (token.normalized) {
    looked_for = normalizer_->normalize(token.content);
    if (looked_for.empty()) entry.fail("content", "text that normalizes to nothing", "some text");
    // Decoders undo what normalizers do, so they get the normalized form too.
    vocabulary_.set_shown(token.id, looked_for);
  }
  AddedTokenFinder& finder = token.normalized ? normalized_finder_ : raw_finder_;
  if (!finder.add(looked_for, token)) {
    entry.fail("content", describe(Json(token.content)) + ", which another token also matches",
               "each added token once");
  }
}

void JsonTokenizer::add_class_tokens(const ModelClass& model_class) {
  for (const std::string& content : model_class.special_tokens) {
    if (vocabulary_.find(content).has_value()) continue;
    AddedToken token;
    token.id = static_cast<TokenId>(vocabulary_.size());
    token.content = content;
    token.normalized = false;
    vocabulary_.add(content, token.id);
    raw_finder_.add(content, token);
  }
}

std::vector<TokenId> JsonTokenizer::encode(std::string_view text, bool add_special) const {
  check_text(text);
  std::vector<TokenId> ids;
  if (add_special) ids = special_.before;
  for (const Segment& segment : raw_finder_.split(text)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_between(text.substr(segment.begin, segment.end - segment.begin), segment.begin == 0,
                     ids);
    }
  }
  if (add_special) ids.insert(ids.end(), special_.after.begin(), special_.after.end());
  return ids;
}

void JsonTokenizer::encode_between(std::string_view text, bool at_start,
                                   std::vector<TokenId>& ids) const {
  const std::string normalized = normalizer_->normalize(std::string(text));
  for (const Segment& segment : normalized_finder_.split(normalized)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    std::vector<Piece> pieces;
    pre_tokenizer_->split({normalized.substr(segment.begin, segment.end - segment.begin),
                           at_start && segment.begin == 0},
                          pieces);
    for (const Piece& piece : pieces) model_->encode(piece.text, ids);
  }
}

std::unique_ptr<TokenTexts> JsonTokenizer::token_texts() const {
  return decoded_tokens(vocabulary_, decoder_, file_);
}

std::string JsonTokenizer::decode(std::span<const TokenId> ids) const {
  return decode_all(*token_texts(), ids);
}

}  // namespace micromix
