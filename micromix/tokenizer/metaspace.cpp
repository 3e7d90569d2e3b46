#include "micromix/tokenizer/metaspace.h"

#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t copied = 0;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, copied)) {
    out += text.substr(copied, at - copied);
    out += to;
    copied = at + from.size();
  }
  out += text.substr(copied);
  return out;
}

}  // namespace

Metaspace::Metaspace(const JsonObject& component)
    : replacement_(component.string("replacement")), split_(component.boolean_or("split", true)) {
  require_known_keys(
      component, {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
  if (replacement_.empty() || utf8_length(replacement_.front()) != replacement_.size()) {
    component.fail("replacement", describe(component.at("replacement")), "one character");
  }
  const bool adds_prefix = component.boolean_or("add_prefix_space", true);
  const std::string scheme =
      component.string_or("prepend_scheme", adds_prefix ? "always" : "never");
  if (scheme == "first") {
    prepend_ = Prepend::kFirst;
  } else if (scheme == "never") {
    prepend_ = Prepend::kNever;
  } else if (scheme != "always") {
    unsupported(component, "prepend_scheme", "always, first or never");
  }
  if (!adds_prefix && prepend_ != Prepend::kNever) {
    component.fail("add_prefix_space", "false", "true, as prepend_scheme has it");
  }
}

std::string Metaspace::mark(std::string_view text, bool at_start) const {
  std::string marked = replace_all(text, " ", replacement_);
  const bool prepends = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && at_start);
  return prepends && !marked.starts_with(replacement_) ? replacement_ + marked : marked;
}

std::string Metaspace::unmark(std::string_view token, bool is_first) const {
  return replace_all(token, replacement_, is_first && prepend_ != Prepend::kNever ? "" : " ");
}

}  // namespace micromix
