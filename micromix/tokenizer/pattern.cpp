#include "micromix/tokenizer/pattern.h"

#include "micromix/tokenizer/component.h"

namespace micromix {

Pattern::Pattern(const JsonObject& component) {
  const JsonObject pattern = component.object("pattern");
  if (pattern.has("Regex")) {
    require_known_keys(pattern, {"Regex"});
    regex_.emplace(pattern.string("Regex"), pattern.file(), pattern.path_of("Regex"));
    return;
  }
  require_known_keys(pattern, {"String"});
  literal_ = pattern.string("String");
  if (literal_.empty()) pattern.fail("String", "the empty string", "text to look for");
}

void Pattern::for_each_match(std::string_view text,
                             const std::function<void(size_t, size_t)>& match) const {
  if (regex_) return regex_->for_each_match(text, match);
  for (size_t at = text.find(literal_); at != text.npos;
       at = text.find(literal_, at + literal_.size())) {
    match(at, at + literal_.size());
  }
}

std::string Pattern::replace(std::string_view text, std::string_view content) const {
  std::string out;
  size_t copied = 0;
  for_each_match(text, [&](size_t begin, size_t end) {
    out += text.substr(copied, begin - copied);
    out += content;
    copied = end;
  });
  out += text.substr(copied);
  return out;
}

}  // namespace micromix
