#include "micromix/tokenizer/decoder.h"

#include <utility>

#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/decoder_stages.h"

namespace micromix {

Decoder Decoder::parse(const JsonObject& tokenizer) {
  Decoder decoder;
  if (!tokenizer.has("decoder")) {
    decoder.stages_.push_back(join_stage());
    return decoder;
  }
  bool fused = false;
  decoder.add(tokenizer.object("decoder"), fused);
  return decoder;
}

Decoder Decoder::sentencepiece() {
  static const Json json = parse_json(
      R"({"decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}})",
      "built-in");
  return parse(JsonObject(json, "built-in"));
}

void Decoder::add(const JsonObject& component, bool& fused) {
  const std::string type = component.string("type");
  if (type == "Sequence") {
    require_known_keys(component, {"type", "decoders"});
    for_each_object(component, "decoders", [&](const JsonObject& member) { add(member, fused); });
  } else if (type == "Fuse") {
    require_known_keys(component, {"type"});
    fused = true;
  } else if (type == "Strip") {
    stages_.push_back(strip_stage(component, fused));
  } else if (fused) {
    unsupported(component, "type", "after Fuse or ByteLevel, Fuse or Strip");
  } else if (type == "ByteLevel") {
    stages_.push_back(byte_level_stage(component));
    fused = true;
  } else if (type == "Replace") {
    stages_.push_back(replace_stage(component));
  } else if (type == "ByteFallback") {
    stages_.push_back(byte_fallback_stage(component));
  } else if (type == "Metaspace") {
    stages_.push_back(metaspace_stage(component));
  } else {
    unsupported(component, "type",
                "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace or Sequence");
  }
}

Decoder::Run::Run(const Decoder& decoder) {
  for (const auto& stage : decoder.stages_) states_.push_back(stage->start());
}

std::string Decoder::Run::push(const std::string& token) {
  std::string text;
  pass(0, token, text);
  return text;
}

std::string Decoder::Run::finish() {
  std::string text;
  for (size_t i = 0; i < states_.size(); ++i) {
    states_[i]->finish([&, i](std::string token) { pass(i + 1, std::move(token), text); });
  }
  return text;
}

void Decoder::Run::pass(size_t stage, std::string token, std::string& text) {
  if (stage == states_.size()) {
    text += token;
    return;
  }
  states_[stage]->push(std::move(token),
                       [&](std::string out) { pass(stage + 1, std::move(out), text); });
}

}  // namespace micromix
