#include "micromix/model/text.h"

#include "micromix/base/error.h"
#include "micromix/base/file.h"

namespace micromix {

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model,
                                          const ModelConfig& config) {
  auto tokenizer = Tokenizer::load(model);
  if (tokenizer->vocabulary_size() > config.vocab_size) {
    throw_invalid(model.string(), "tokenizer",
                  fmt::format("token id {}", tokenizer->vocabulary_size() - 1),
                  fmt::format("ids below the vocab_size of config.json, {}", config.vocab_size));
  }
  return tokenizer;
}

std::vector<TokenId> tokenize_file(const Tokenizer& tokenizer, const std::filesystem::path& file) {
  const std::string text = read_file(file);
  if (text.empty()) throw_invalid(file.string(), "text", "nothing", "UTF-8 text");
  try {
    return tokenizer.encode(text, /*add_special=*/false);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", file.string(), error.what()));
  }
}

}  // namespace micromix
