// Decoding by a vocabulary and a decoder, which both tokenizers do.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "micromix/tokenizer/decoder.h"
#include "micromix/tokenizer/tokenizer.h"
#include "micromix/tokenizer/vocabulary.h"

namespace micromix {

// FILE names the tokenizer in messages. All arguments must outlive the result.
std::unique_ptr<TokenTexts> decoded_tokens(const Vocabulary& vocabulary, const Decoder& decoder,
                                           const std::string& file);

// The text of a whole sequence.
std::string decode_all(TokenTexts& texts, std::span<const TokenId> ids);

// Throws Error where TEXT is not UTF-8, or longer than the 2³⁰ bytes that encoders count in 32
// bits.
void check_text(std::string_view text);

}  // namespace micromix
