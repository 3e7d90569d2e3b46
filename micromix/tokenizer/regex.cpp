#include "micromix/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "micromix/base/error.h"
#include "micromix/tokenizer/regex_dialect.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

// Backtracking allowed for one match: ample for any pattern that is linear in the text (a
// whitespace run of n characters costs a few n), and seconds at most for one that is not.
constexpr uint32_t kMatchLimitBase = 10'000'000;
constexpr uint32_t kMatchLimitPerByte = 16;
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMax = 64 << 20;

std::string message_of(int code) {
  PCRE2_UCHAR8 buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* pointer) const { Free(pointer); }
};
using CompileContext = std::unique_ptr<pcre2_compile_context,
                                       Freer<pcre2_compile_context, pcre2_compile_context_free>>;
using MatchContext =
    std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context, pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data, pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freer<pcre2_jit_stack, pcre2_jit_stack_free>>;

uint32_t match_limit(size_t bytes) {
  const uint64_t limit = kMatchLimitBase + uint64_t{kMatchLimitPerByte} * bytes;
  return static_cast<uint32_t>(std::min<uint64_t>(limit, UINT32_MAX));
}

// One text's matching state: PCRE2 compiles once and matches from many threads, each with its own.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view text)
      : code_(code),
        text_(text),
        data_(pcre2_match_data_create_from_pattern(code, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    if (!data_ || !context_) throw std::bad_alloc();
    pcre2_set_match_limit(context_.get(), match_limit(text.size()));
  }

  // PCRE2's result of a search from START.
  int search(size_t start) {
    int result = match(start);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && !stack_) {
      // The machine stack's 32 KiB serve nearly every text; a larger stack is made when they do
      // not.
      stack_.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr));
      if (!stack_) throw std::bad_alloc();
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      result = match(start);
    }
    return result;
  }

  size_t begin() const { return pcre2_get_ovector_pointer(data_.get())[0]; }
  size_t end() const { return pcre2_get_ovector_pointer(data_.get())[1]; }

 private:
  int match(size_t start) {
    // The text is known to be UTF-8; checking it in every call would make the whole quadratic.
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), start,
                       PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  const pcre2_code* code_;
  std::string_view text_;
  MatchData data_;
  MatchContext context_;
  JitStack stack_;
};

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled) : pcre2(compiled) {}
  ~Code() { pcre2_code_free(pcre2); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* pcre2;
};

Regex::Regex(const std::string& pattern, const std::string& file, const std::string& field)
    : where_(file + ": " + field) {
  const std::string translated = pcre2_from_oniguruma(pattern, file, field);
  CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE at = 0;
  // Ruby's ^ and $ are always those of lines.
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &at,
                    context.get());
  if (code == nullptr) {
    throw_invalid(file, field,
                  fmt::format("a regex that does not compile ({} at offset {} of {})",
                              message_of(error), at, translated),
                  "a regular expression");
  }
  code_ = std::make_shared<const Code>(code);
  // Without JIT on this machine the interpreter runs instead, with the same results.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

void Regex::for_each_match(std::string_view text,
                           const std::function<void(size_t, size_t)>& match) const {
  Matcher matcher(code_->pcre2, text);
  size_t start = 0;
  size_t previous_end = std::string_view::npos;
  while (start <= text.size()) {
    const int result = matcher.search(start);
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) {
      throw Error(fmt::format("{}: matching failed at byte {} of a text of {} bytes: {}", where_,
                              start, text.size(), message_of(result)));
    }
    const size_t begin = matcher.begin();
    const size_t end = matcher.end();
    if (begin == end && end == previous_end) {
      start = end + (end < text.size() ? utf8_length(text[end]) : 1);
      continue;
    }
    match(begin, end);
    start = previous_end = end;
  }
}

bool is_word_character(char32_t code_point) {
  if (code_point < 0x80) {
    return code_point == '_' || (code_point >= '0' && code_point <= '9') ||
           ((code_point | 0x20) >= 'a' && (code_point | 0x20) <= 'z');
  }
  static const Regex word(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])", "built-in",
                          "word");
  std::string character;
  append_utf8(character, code_point);
  bool is_word = false;
  word.for_each_match(character, [&](size_t, size_t) { is_word = true; });
  return is_word;
}

}  // namespace micromix
