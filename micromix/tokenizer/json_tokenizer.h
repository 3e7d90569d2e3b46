// The tokenizer that a tokenizer.json describes.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "micromix/tokenizer/added_tokens.h"
#include "micromix/tokenizer/bpe.h"
#include "micromix/tokenizer/decoder.h"
#include "micromix/tokenizer/model_class.h"
#include "micromix/tokenizer/normalizer.h"
#include "micromix/tokenizer/post_processor.h"
#include "micromix/tokenizer/pre_tokenizer.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

class JsonTokenizer : public Tokenizer {
 public:
  // Throws Error.
  explicit JsonTokenizer(const std::filesystem::path& file, const ModelClass& model_class = {});

  std::vector<TokenId> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  int64_t vocabulary_size() const override { return file_tokens_; }
  std::unique_ptr<TokenTexts> token_texts() const override;

 private:
  void parse(const JsonObject& root);
  void add_token(const AddedToken& token, const JsonObject& entry);
  void add_class_tokens(const ModelClass& model_class);
  void encode_between(std::string_view text, bool at_start, std::vector<TokenId>& ids) const;

  std::string file_;
  std::unique_ptr<Bpe> model_;
  Vocabulary vocabulary_;    // the model's and the added tokens
  int64_t file_tokens_ = 0;  // of the vocabulary, without those the model class adds
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  AddedTokenFinder raw_finder_;         // of added tokens as text has them
  AddedTokenFinder normalized_finder_;  // of added tokens as normalized text has them
  SpecialTokens special_;
  Decoder decoder_;
};

}  // namespace micromix
