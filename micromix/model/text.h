// Text for a model: its tokenizer, held against its vocabulary, and files of text as tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "micromix/checkpoint/config.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

// The tokenizer in MODEL. Throws Error, also where it has ids beyond the model's vocabulary.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model,
                                          const ModelConfig& config);

// All of a text file, no special tokens. Throws Error where it is empty or not UTF-8.
std::vector<TokenId> tokenize_file(const Tokenizer& tokenizer, const std::filesystem::path& file);

}  // namespace micromix
