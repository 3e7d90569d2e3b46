// Post-processors of a tokenizer.json: the special tokens around a text.
#pragma once

#include <vector>

#include "micromix/base/json.h"
#include "micromix/tokenizer/vocabulary.h"

namespace micromix {

struct SpecialTokens {
  std::vector<TokenId> before;
  std::vector<TokenId> after;
};

// TOKENIZER's "post_processor"; null adds nothing. Throws Error naming a component that is not
// supported, or a token that VOCABULARY lacks. Supported: TemplateProcessing, ByteLevel (which
// changes offsets only), and Sequence of them.
SpecialTokens parse_post_processor(const JsonObject& tokenizer, const Vocabulary& vocabulary);

}  // namespace micromix
