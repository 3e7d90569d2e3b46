#include "micromix/tokenizer/tokenizer.h"

#include "micromix/base/error.h"
#include "micromix/tokenizer/json_tokenizer.h"
#include "micromix/tokenizer/sentencepiece_tokenizer.h"

namespace micromix {

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& model) {
  if (std::filesystem::exists(model / "tokenizer.json")) {
    return std::make_unique<JsonTokenizer>(model / "tokenizer.json", find_model_class(model));
  }
  if (std::filesystem::exists(model / "tokenizer.model")) {
    return std::make_unique<SentencePieceTokenizer>(model);
  }
  throw_invalid(model.string(), "tokenizer", "neither tokenizer.json nor tokenizer.model",
                "one of them");
}

}  // namespace micromix
