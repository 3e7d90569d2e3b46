// Text to token ids and back, as the tokenizer in a model's folder does it.
//
// Results are those of Hugging Face tokenizers, id for id and byte for byte. What a tokenizer file
// asks for and this code does not do is an Error that names it, never an approximation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace micromix {

using TokenId = int32_t;

class TokenTexts;

class Tokenizer {
 public:
  // Loads MODEL/tokenizer.json, or MODEL/tokenizer.model where there is none. Throws Error.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& model);

  virtual ~Tokenizer() = default;

  // TEXT must be valid UTF-8 (throws Error naming the byte offset otherwise). ADD_SPECIAL: with the
  // tokens that the tokenizer's post-processor adds (BOS, ...). Safe to call from several threads.
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special) const = 0;

  // Special tokens kept, no clean-up. Throws Error on an id the tokenizer does not have. Bytes that
  // are not UTF-8 become U+FFFD.
  virtual std::string decode(std::span<const TokenId> ids) const = 0;

  // One more than the largest id in the tokenizer's files (tokens that only the model's class adds,
  // see model_class.h, are not counted).
  virtual int64_t vocabulary_size() const = 0;

  // The state of decoding token by token; decode() is this over all ids.
  virtual std::unique_ptr<TokenTexts> token_texts() const = 0;
};

// Text as its tokens arrive. Must not outlive its tokenizer.
class TokenTexts {
 public:
  virtual ~TokenTexts() = default;
  // The text that ID completes. Throws Error on an id the tokenizer does not have.
  virtual std::string push(TokenId id) = 0;
  // The rest of the text.
  virtual std::string finish() = 0;
};

// Text of a growing sequence, for streaming. All that push returned and then finish is decode of
// the whole sequence; each push costs what its token does, not what came before.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : texts_(tokenizer.token_texts()) {}

  // The newly complete UTF-8 text. Bytes of an incomplete character wait, and so does a run of
  // SentencePiece byte tokens, which reads as text or as U+FFFD only when the whole run is known.
  std::string push(TokenId id) { return texts_->push(id); }

  // The rest, as decode would show it.
  std::string finish() { return texts_->finish(); }

 private:
  std::unique_ptr<TokenTexts> texts_;
};

}  // namespace micromix
