// What the tokenizer class of a model family in Hugging Face's transformers does whatever
// tokenizer.json says.
//
// AutoTokenizer picks the class by config.json's model_type. That of qwen2 and qwen3
// (Qwen2Tokenizer, transformers 5) always normalizes to NFC, and has <|endoftext|> as a special
// token: where tokenizer.json does not, it gets the next free id, which may lie beyond the model's
// embeddings. Published Qwen models' files say the same themselves.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "micromix/base/json.h"

namespace micromix {

struct ModelClass {
  bool nfc = false;                         // normalize to NFC
  std::vector<std::string> special_tokens;  // added where the tokenizer does not have them
};

// The class for the model folder; one that does nothing where config.json is absent or names
// another family. Throws Error where config.json cannot be parsed.
ModelClass find_model_class(const std::filesystem::path& model);

}  // namespace micromix
