#include "micromix/checkpoint/quantization_config.h"

#include "micromix/base/error.h"

namespace micromix {
namespace {

constexpr const char* kQuantMethod = "micromix";

ActivationFormat parse_activation(const JsonObject& formats, const std::string& key) {
  const std::string text = formats.string(key);
  if (text == "bf16") return std::nullopt;
  const auto format = mx::parse_format(text, mx::kOperandFormats);
  if (!format) formats.fail(key, "'" + text + "'", "bf16, e2m1, e2m3, e3m2 or e4m3");
  return format;
}

std::vector<std::string> parse_modules(const JsonObject& object, const std::string& key) {
  std::vector<std::string> modules;
  if (!object.has(key)) return modules;
  const Json& values = object.at(key);
  if (!values.is_array()) object.fail(key, describe(values), "an array of module names");
  for (const Json& value : values) {
    if (!value.is_string()) object.fail(key, describe(value), "module names");
    modules.push_back(value.get<std::string>());
  }
  return modules;
}

}  // namespace

Json QuantizationConfig::to_json() const {
  Json activations = Json::object();
  for (const auto& [weight, activation] : activation_formats) {
    activations[std::string(mx::name(weight))] = activation ? mx::name(*activation) : "bf16";
  }
  return {{"quant_method", kQuantMethod},
          {"version", version},
          {"block_size", mx::kBlockSize},
          {"channel_group", channel_group},
          {"scale_rule", mx::name(scale_rule)},
          {"activation_formats", activations},
          {"modules_to_not_convert", modules_to_not_convert},
          {"average_bits", average_bits},
          {"provenance", provenance}};
}

QuantizationConfig parse_quantization(const JsonObject& object) {
  const std::string method = object.string("quant_method");
  if (method != kQuantMethod) {
    object.fail("quant_method", "'" + method + "'", "a BF16 model, or one quantized by micromix");
  }
  QuantizationConfig config;
  config.version = object.integer("version", 1, INT32_MAX);
  if (config.version > QuantizationConfig::kVersion) {
    object.fail("version", fmt::format("{}", config.version),
                fmt::format("at most {}: the folder was written by a newer micromix",
                            QuantizationConfig::kVersion));
  }
  object.integer("block_size", mx::kBlockSize, mx::kBlockSize);
  config.channel_group = object.integer("channel_group", 32, 128);
  if (config.channel_group % 32 != 0 || config.channel_group == 96) {
    object.fail("channel_group", fmt::format("{}", config.channel_group), "32, 64 or 128");
  }
  const std::string rule = object.string("scale_rule");
  const auto scale_rule = mx::parse_scale_rule(rule);
  if (!scale_rule) object.fail("scale_rule", "'" + rule + "'", "floor, rceil or even");
  config.scale_rule = *scale_rule;
  const JsonObject formats = object.object("activation_formats");
  for (const auto& item : formats.json().items()) {
    const auto weight = mx::parse_format(item.key(), mx::kOperandFormats);
    if (!weight) formats.fail(item.key(), "that key", "e2m1, e2m3, e3m2 or e4m3");
    config.activation_formats[*weight] = parse_activation(formats, item.key());
  }
  config.modules_to_not_convert = parse_modules(object, "modules_to_not_convert");
  config.average_bits = object.number("average_bits");
  if (object.has("provenance")) config.provenance = object.object("provenance").json();
  return config;
}

}  // namespace micromix
