#include "micromix/tokenizer/decoded_tokens.h"

#include "micromix/base/error.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

// A byte may become two in the byte alphabet, and positions are int32.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

class DecodedTokens : public TokenTexts {
 public:
  DecodedTokens(const Vocabulary& vocabulary, const Decoder& decoder, const std::string& file)
      : vocabulary_(vocabulary), file_(file), run_(decoder) {}

  std::string push(TokenId id) override {
    const std::string* token = vocabulary_.token(id);
    if (token == nullptr) {
      throw_invalid(file_, "decode", fmt::format("token id {}", id),
                    fmt::format("an id of this tokenizer, the largest of which is {}",
                                vocabulary_.size() - 1));
    }
    return run_.push(*token);
  }
  std::string finish() override { return run_.finish(); }

 private:
  const Vocabulary& vocabulary_;
  const std::string& file_;
  Decoder::Run run_;
};

}  // namespace

std::unique_ptr<TokenTexts> decoded_tokens(const Vocabulary& vocabulary, const Decoder& decoder,
                                           const std::string& file) {
  return std::make_unique<DecodedTokens>(vocabulary, decoder, file);
}

std::string decode_all(TokenTexts& texts, std::span<const TokenId> ids) {
  std::string text;
  for (const TokenId id : ids) text += texts.push(id);
  text += texts.finish();
  return text;
}

void check_text(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    throw_invalid("text", "length", fmt::format("{} bytes", text.size()),
                  fmt::format("at most {}", kMaxTextBytes));
  }
  require_utf8(text, "text");
}

}  // namespace micromix
