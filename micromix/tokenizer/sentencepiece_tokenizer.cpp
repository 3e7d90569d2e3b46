#include "micromix/tokenizer/sentencepiece_tokenizer.h"

#include <charconv>
#include <limits>

#include <sentencepiece_processor.h>

#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/decoded_tokens.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

// ModelProto.normalizer_spec (field 3) of add_dummy_prefix (field 3) = false, serialized. Appended
// to a serialized model it overrides that one option: protobuf merges a message that is there
// twice.
constexpr std::string_view kNoDummyPrefix{"\x1A\x02\x18\x00", 4};

// SentencePiece's messages quote the file, whatever bytes it has.
std::string printable(const sentencepiece::util::Status& status) {
  return Json(status.ToString()).dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::unique_ptr<sentencepiece::SentencePieceProcessor> load_processor(const std::string& bytes,
                                                                      const std::string& file) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto(bytes);
  if (!status.ok()) throw_invalid(file, "model", printable(status), "a SentencePiece model");
  return processor;
}

// Tokens in tokenizer_config.json are strings or objects with their content.
std::string token_content(const JsonObject& config, const std::string& key) {
  return config.at(key).is_object() ? config.object(key).string("content") : config.string(key);
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::filesystem::path& model)
    : file_((model / "tokenizer.model").string()) {
  load_processors();
  const std::filesystem::path added = model / "added_tokens.json";
  const std::filesystem::path config = model / "tokenizer_config.json";
  const Json config_json = std::filesystem::exists(config) ? read_json(config) : Json::object();
  const Json added_json = std::filesystem::exists(added) ? read_json(added) : Json::object();
  const JsonObject config_object(config_json, config.string());
  if (config_object.has("added_tokens_decoder")) {
    add_listed_tokens(config_object.object("added_tokens_decoder"));
  }
  const JsonObject added_object(added_json, added.string());
  for (const auto& [content, id] : added_json.items()) {
    const TokenId token_id = parse_token_id(added_object, content);
    // added_tokens_decoder has the same tokens with their flags.
    if (vocabulary_.find(content) == token_id) continue;
    AddedToken token;
    token.id = token_id;
    token.content = content;
    add_token(token, added_object, content);
  }
  add_model_tokens();
  read_config(config_object);
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::load_processors() {
  const std::string bytes = read_file(file_);
  if (bytes.empty()) throw_invalid(file_, "model", "an empty file", "a SentencePiece model");
  processor_ = load_processor(bytes, file_);
  without_prefix_ = load_processor(bytes + std::string(kNoDummyPrefix), file_);
  for (int id = 0; id < processor_->GetPieceSize(); ++id) {
    const std::string& piece = processor_->IdToPiece(id);
    require_utf8(piece, fmt::format("{}: piece {}", file_, id));
    if (!vocabulary_.add(piece, id)) {
      throw_invalid(file_, fmt::format("piece {}", id), describe(Json(piece)) + " again",
                    "each piece once");
    }
  }
}

// The unknown token and the control tokens (<s>, </s>), which SentencePiece does not look for in
// text.
void SentencePieceTokenizer::add_model_tokens() {
  for (const int id : {processor_->unk_id(), processor_->bos_id(), processor_->eos_id()}) {
    if (id < 0) continue;
    AddedToken token;
    token.id = id;
    token.content = processor_->IdToPiece(id);
    finder_.add(token.content, token);  // false where the config lists it, with its flags
  }
}

void SentencePieceTokenizer::add_listed_tokens(const JsonObject& listed) {
  for (const auto& [key, value] : listed.json().items()) {
    TokenId id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      listed.fail(key, "this key", "a token id as key");
    }
    const JsonObject entry = listed.object(key);
    add_token(parse_added_token(entry, id), entry, "content");
  }
}

void SentencePieceTokenizer::add_token(const AddedToken& token, const JsonObject& entry,
                                       const std::string& key) {
  if (token.content.empty()) entry.fail(key, "an empty token", "text");
  if (vocabulary_.find(token.content) != token.id && !vocabulary_.add(token.content, token.id)) {
    entry.fail(key,
               fmt::format("{} with id {}, which clashes with another token",
                           describe(Json(token.content)), token.id),
               "one id a token, and one token an id");
  }
  if (!finder_.add(token.content, token)) {
    entry.fail(key, describe(Json(token.content)) + " again", "each added token once");
  }
}

void SentencePieceTokenizer::read_config(const JsonObject& config) {
  legacy_ = config.boolean_or("legacy", true);
  add_special(config, "add_bos_token", true, "bos_token", processor_->bos_id(), special_.before);
  add_special(config, "add_eos_token", false, "eos_token", processor_->eos_id(), special_.after);
}

void SentencePieceTokenizer::add_special(const JsonObject& config, const char* option,
                                         bool fallback, const char* name, int piece,
                                         std::vector<TokenId>& special) const {
  if (!config.boolean_or(option, fallback)) return;
  std::optional<TokenId> id;
  if (piece >= 0) id = piece;
  if (config.has(name)) {
    id = vocabulary_.find(token_content(config, name));
    if (!id) config.fail(name, describe(config.at(name)), "a token of " + file_);
  }
  if (!id) config.fail(name, "nothing, with " + std::string(option) + " set", "a token");
  special.push_back(*id);
}

std::vector<TokenId> SentencePieceTokenizer::encode(std::string_view text, bool add_special) const {
  check_text(text);
  std::vector<TokenId> ids;
  if (add_special) ids = special_.before;
  for (const Segment& segment : finder_.split(text)) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    const bool prefix = legacy_ || segment.begin == 0;
    const std::string_view part = text.substr(segment.begin, segment.end - segment.begin);
    std::vector<int> part_ids;
    const auto status = (prefix ? processor_ : without_prefix_)
                            ->Encode(absl::string_view(part.data(), part.size()), &part_ids);
    if (!status.ok()) throw Error(file_ + ": encode: " + printable(status));
    ids.insert(ids.end(), part_ids.begin(), part_ids.end());
  }
  if (add_special) ids.insert(ids.end(), special_.after.begin(), special_.after.end());
  return ids;
}

std::unique_ptr<TokenTexts> SentencePieceTokenizer::token_texts() const {
  return decoded_tokens(vocabulary_, decoder_, file_);
}

std::string SentencePieceTokenizer::decode(std::span<const TokenId> ids) const {
  return decode_all(*token_texts(), ids);
}

}  // namespace micromix
