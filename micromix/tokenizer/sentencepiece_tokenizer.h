// The tokenizer of a SentencePiece tokenizer.model, as Llama-2 and Mistral folders have it.
//
// The ids are those of Hugging Face's LlamaTokenizer: special and added tokens are cut out of the
// text first, and SentencePiece encodes each stretch between. Options come from
// tokenizer_config.json (add_bos_token, add_eos_token, bos_token, eos_token, legacy,
// added_tokens_decoder) and added_tokens.json, where they are.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "micromix/base/json.h"
#include "micromix/tokenizer/added_tokens.h"
#include "micromix/tokenizer/decoder.h"
#include "micromix/tokenizer/post_processor.h"
#include "micromix/tokenizer/tokenizer.h"
#include "micromix/tokenizer/vocabulary.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace micromix {

class SentencePieceTokenizer : public Tokenizer {
 public:
  // Throws Error.
  explicit SentencePieceTokenizer(const std::filesystem::path& model);
  ~SentencePieceTokenizer() override;

  std::vector<TokenId> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  int64_t vocabulary_size() const override { return vocabulary_.size(); }
  std::unique_ptr<TokenTexts> token_texts() const override;

 private:
  using Processor = sentencepiece::SentencePieceProcessor;

  void load_processors();
  void add_model_tokens();
  void read_config(const JsonObject& config);
  void add_listed_tokens(const JsonObject& listed);
  void add_token(const AddedToken& token, const JsonObject& entry, const std::string& key);
  void add_special(const JsonObject& config, const char* option, bool fallback, const char* name,
                   int piece, std::vector<TokenId>& special) const;

  std::string file_;
  std::unique_ptr<Processor> processor_;
  std::unique_ptr<Processor> without_prefix_;  // the same, but no space put before the text
  Vocabulary vocabulary_;
  AddedTokenFinder finder_;
  SpecialTokens special_;
  Decoder decoder_ = Decoder::sentencepiece();
  bool legacy_ = true;  // a space is put before each stretch of text, not only before the first
};

}  // namespace micromix
