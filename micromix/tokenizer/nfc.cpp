// Canonical decomposition, ordering and composition.
//
// utf8proc's own utf8proc_map orders combining marks by exchanging neighbours, which is quadratic
// in a run of marks: a megabyte of alternating marks would take hours. So the ordering is done
// here.
#include <algorithm>
#include <new>
#include <vector>

#include <utf8proc.h>

#include "micromix/base/error.h"
#include "micromix/tokenizer/normalizer.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

// Below U+0300 every character is in NFC and none combines with another.
bool is_plainly_nfc(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

utf8proc_propval_t combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text.size());
  // No canonical decomposition is longer than 4 code points (Unicode 15, UAX 15).
  utf8proc_int32_t parts[8];
  for (size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const auto count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(utf8_code_point(text, at)), parts, std::size(parts),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), nullptr);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(parts))) {
      throw Error(fmt::format("NFC at byte {}: {}", at, utf8proc_errmsg(count)));
    }
    code_points.insert(code_points.end(), parts, parts + count);
  }
  return code_points;
}

void order_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto is_starter = [](utf8proc_int32_t c) { return combining_class(c) == 0; };
  auto run = code_points.begin();
  while (run != code_points.end()) {
    const auto marks = std::find_if_not(run, code_points.end(), is_starter);
    run = std::find_if(marks, code_points.end(), is_starter);
    std::stable_sort(marks, run, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
  }
}

}  // namespace

std::string to_nfc(std::string text) {
  if (is_plainly_nfc(text)) return text;
  std::vector<utf8proc_int32_t> code_points = decompose(text);
  order_marks(code_points);
  const auto count = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  if (count < 0) throw Error(fmt::format("NFC: {}", utf8proc_errmsg(count)));
  code_points.resize(static_cast<size_t>(count));
  text.clear();
  for (const utf8proc_int32_t c : code_points) append_utf8(text, static_cast<char32_t>(c));
  return text;
}

}  // namespace micromix
