// Normalizers of a tokenizer.json: what is done to text before it is split into words.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "micromix/base/json.h"

namespace micromix {

class Normalizer {
 public:
  // TOKENIZER's "normalizer"; null is the identity. Throws Error naming a component that is not
  // supported. Supported: NFC, Prepend, Replace, and Sequence of them.
  static std::unique_ptr<Normalizer> parse(const JsonObject& tokenizer);

  virtual ~Normalizer() = default;
  // TEXT is valid UTF-8, and so is the result.
  virtual std::string normalize(std::string text) const = 0;
};

// Unicode normalization form C, in O(n log n) for any text.
std::string to_nfc(std::string text);

}  // namespace micromix
