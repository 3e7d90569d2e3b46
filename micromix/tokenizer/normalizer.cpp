#include "micromix/tokenizer/normalizer.h"

#include <utility>
#include <vector>

#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/pattern.h"

namespace micromix {
namespace {

class Nfc : public Normalizer {
 public:
  explicit Nfc(const JsonObject& component) { require_known_keys(component, {"type"}); }
  std::string normalize(std::string text) const override { return to_nfc(std::move(text)); }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(const JsonObject& component) : prefix_(component.string("prepend")) {
    require_known_keys(component, {"type", "prepend"});
  }
  std::string normalize(std::string text) const override {
    return text.empty() ? text : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  explicit Replace(const JsonObject& component)
      : pattern_(component), content_(component.string("content")) {
    require_known_keys(component, {"type", "pattern", "content"});
  }
  std::string normalize(std::string text) const override {
    return pattern_.replace(text, content_);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

std::unique_ptr<Normalizer> parse_component(const JsonObject& component);

// Of no members, the identity.
class NormalizerSequence : public Normalizer {
 public:
  NormalizerSequence() = default;
  explicit NormalizerSequence(const JsonObject& component) {
    require_known_keys(component, {"type", "normalizers"});
    for_each_object(component, "normalizers",
                    [&](const JsonObject& member) { members_.push_back(parse_component(member)); });
  }
  std::string normalize(std::string text) const override {
    for (const auto& member : members_) text = member->normalize(std::move(text));
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> members_;
};

std::unique_ptr<Normalizer> parse_component(const JsonObject& component) {
  const std::string type = component.string("type");
  if (type == "NFC") return std::make_unique<Nfc>(component);
  if (type == "Prepend") return std::make_unique<Prepend>(component);
  if (type == "Replace") return std::make_unique<Replace>(component);
  if (type == "Sequence") return std::make_unique<NormalizerSequence>(component);
  unsupported(component, "type", "NFC, Prepend, Replace or Sequence");
}

}  // namespace

std::unique_ptr<Normalizer> Normalizer::parse(const JsonObject& tokenizer) {
  if (!tokenizer.has("normalizer")) return std::make_unique<NormalizerSequence>();
  return parse_component(tokenizer.object("normalizer"));
}

}  // namespace micromix
