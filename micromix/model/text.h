// Text for a model: its tokenizer, held against its vocabulary, and files of text as tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "micromix/checkpoint/config.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

// The tokenizer in MODEL. Throws Error, also where it has ids beyond the model's vocabulary.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model,
                                          const ModelConfig& config);

// Throws Error where a token has no embedding in the model (see ModelClass: a tokenizer's class may
// add such). SOURCE names the text.
void expect_in_vocabulary(std::span<const TokenId> ids, const ModelConfig& config,
                          const std::string& source);

// Tokenizer::encode whose errors name SOURCE.
std::vector<TokenId> tokenize(const Tokenizer& tokenizer, std::string_view text, bool add_special,
                              const std::string& source);

// All of a text file, no special tokens. Throws Error where it is empty, not UTF-8, or has a token
// without an embedding.
std::vector<TokenId> tokenize_file(const Tokenizer& tokenizer, const ModelConfig& config,
                                   const std::filesystem::path& file);

}  // namespace micromix
