#include "micromix/tokenizer/utf8.h"

#include "micromix/base/error.h"

namespace micromix {
namespace {

// How the bytes at a place begin: LENGTH of them are a whole character, or (well_formed false) an
// ill-formed subpart; incomplete says that more bytes could have made a character of them.
struct Subpart {
  size_t length;
  bool well_formed;
  bool incomplete;
};

// Continuation bytes that the lead byte wants, and the range of the first of them; Table 3-7.
struct Lead {
  int continuations;
  unsigned char low;
  unsigned char high;
};

Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

Subpart subpart_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {1, true, false};
  Lead lead = lead_of(first);
  if (lead.continuations == 0) return {1, false, false};
  size_t length = 1;
  for (int i = 0; i < lead.continuations; ++i, ++length) {
    if (at + length == text.size()) return {length, false, true};
    const auto byte = static_cast<unsigned char>(text[at + length]);
    if (byte < lead.low || byte > lead.high) return {length, false, false};
    lead.low = 0x80;
    lead.high = 0xBF;
  }
  return {length, true, false};
}

}  // namespace

size_t first_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Subpart part = subpart_at(text, at);
    if (!part.well_formed) return at;
    at += part.length;
  }
  return at;
}

void require_utf8(std::string_view text, const std::string& source) {
  const size_t at = first_invalid_utf8(text);
  if (at == text.size()) return;
  throw_invalid(source, fmt::format("byte {}", at),
                fmt::format("0x{:02X}", static_cast<unsigned char>(text[at])), "valid UTF-8");
}

size_t utf8_previous(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

char32_t utf8_code_point(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  switch (utf8_length(text[at])) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
    case 3:
      return (byte(0) & 0x0Fu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
    default:
      return (byte(0) & 0x07u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 |
             (byte(3) & 0x3Fu);
  }
}

void append_utf8(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
    return;
  }
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

void LossyUtf8::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!waiting_.empty()) {
    joined = std::move(waiting_);
    waiting_.clear();
    joined += bytes;
    bytes = joined;
  }
  size_t at = 0;
  while (at < bytes.size()) {
    const Subpart part = subpart_at(bytes, at);
    if (part.incomplete) {
      waiting_.assign(bytes.substr(at));
      return;
    }
    out += part.well_formed ? bytes.substr(at, part.length) : kReplacementCharacter;
    at += part.length;
  }
}

void LossyUtf8::finish(std::string& out) {
  if (!waiting_.empty()) out += kReplacementCharacter;
  waiting_.clear();
}

}  // namespace micromix
