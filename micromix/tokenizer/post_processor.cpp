#include "micromix/tokenizer/post_processor.h"

#include "micromix/base/error.h"
#include "micromix/tokenizer/component.h"

namespace micromix {
namespace {

// The ids of the special token NAME in TEMPLATE's table.
std::vector<TokenId> ids_of(const std::string& name, const JsonObject& component,
                            const Vocabulary& vocabulary) {
  const JsonObject table = component.object("special_tokens");
  const JsonObject entry = table.object(name);
  const Json& ids = entry.at("ids");
  if (!ids.is_array()) entry.fail("ids", describe(ids), "an array of ids");
  std::vector<TokenId> result;
  for (const Json& id : ids) {
    const bool fits = id.is_number_integer() && id >= 0 && id < vocabulary.size();
    if (!fits || vocabulary.token(id.get<TokenId>()) == nullptr) {
      entry.fail("ids", describe(id), "ids of the vocabulary");
    }
    result.push_back(id.get<TokenId>());
  }
  return result;
}

// Puts what TEMPLATE has around the text around SPECIAL.
void add_template(const JsonObject& component, const Vocabulary& vocabulary,
                  SpecialTokens& special) {
  require_known_keys(component, {"type", "single", "pair", "special_tokens"});
  SpecialTokens outer;
  bool text_seen = false;
  for_each_object(component, "single", [&](const JsonObject& piece) {
    if (piece.has("Sequence")) {
      if (text_seen || piece.object("Sequence").string("id") != "A") {
        unsupported(piece, "Sequence", "the text A, once");
      }
      text_seen = true;
      return;
    }
    const auto ids = ids_of(piece.object("SpecialToken").string("id"), component, vocabulary);
    auto& side = text_seen ? outer.after : outer.before;
    side.insert(side.end(), ids.begin(), ids.end());
  });
  if (!text_seen) component.fail("single", "no sequence A", "the text A, once");
  special.before.insert(special.before.begin(), outer.before.begin(), outer.before.end());
  special.after.insert(special.after.end(), outer.after.begin(), outer.after.end());
}

void add_component(const JsonObject& component, const Vocabulary& vocabulary,
                   SpecialTokens& special) {
  const std::string type = component.string("type");
  if (type == "TemplateProcessing") {
    add_template(component, vocabulary, special);
  } else if (type == "ByteLevel") {
    require_known_keys(component, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  } else if (type == "Sequence") {
    require_known_keys(component, {"type", "processors"});
    for_each_object(component, "processors",
                    [&](const JsonObject& member) { add_component(member, vocabulary, special); });
  } else {
    unsupported(component, "type", "TemplateProcessing, ByteLevel or Sequence");
  }
}

}  // namespace

SpecialTokens parse_post_processor(const JsonObject& tokenizer, const Vocabulary& vocabulary) {
  SpecialTokens special;
  if (tokenizer.has("post_processor")) {
    add_component(tokenizer.object("post_processor"), vocabulary, special);
  }
  return special;
}

}  // namespace micromix
