// GPT-2's alphabet for byte-level BPE: one printable character for each byte. Printable Latin-1
// bytes stand for themselves, the 68 others for U+0100 on, in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace micromix {

// BYTES, each as its character.
std::string to_byte_alphabet(std::string_view bytes);

// The bytes that TEXT's characters stand for; nothing where one is not in the alphabet. Valid
// UTF-8.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace micromix
