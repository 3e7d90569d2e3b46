#include "micromix/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr int kCharacters = 0x100 + 68;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

constexpr std::array<char32_t, 256> make_characters() {
  std::array<char32_t, 256> characters{};
  char32_t substitute = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) {
    characters[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : substitute++;
  }
  return characters;
}

constexpr std::array<char32_t, 256> kCharacterOfByte = make_characters();

constexpr std::array<int16_t, kCharacters> make_bytes() {
  std::array<int16_t, kCharacters> bytes{};
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    bytes[kCharacterOfByte[byte]] = static_cast<int16_t>(byte);
  }
  return bytes;
}

constexpr std::array<int16_t, kCharacters> kByteOfCharacter = make_bytes();

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) {
    append_utf8(text, kCharacterOfByte[static_cast<unsigned char>(byte)]);
  }
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t c = utf8_code_point(text, at);
    if (c >= kByteOfCharacter.size() || kByteOfCharacter[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOfCharacter[c]));
  }
  return bytes;
}

}  // namespace micromix
