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

void expect_in_vocabulary(std::span<const TokenId> ids, const ModelConfig& config,
                          const std::string& source) {
  for (TokenId id : ids) {
    if (id >= config.vocab_size) {
      throw_invalid(source, "text", fmt::format("a token of id {}", id),
                    fmt::format("ids below the model's vocab_size, {}", config.vocab_size));
    }
  }
}

std::vector<TokenId> tokenize(const Tokenizer& tokenizer, std::string_view text, bool add_special,
                              const std::string& source) {
  try {
    return tokenizer.encode(text, add_special);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", source, error.what()));
  }
}

std::vector<TokenId> tokenize_file(const Tokenizer& tokenizer, const ModelConfig& config,
                                   const std::filesystem::path& file) {
  const std::string text = read_file(file);
  if (text.empty()) throw_invalid(file.string(), "text", "nothing", "UTF-8 text");
  std::vector<TokenId> ids = tokenize(tokenizer, text, /*add_special=*/false, file.string());
  expect_in_vocabulary(ids, config, file.string());
  return ids;
}

}  // namespace micromix
