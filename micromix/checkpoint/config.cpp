#include "micromix/checkpoint/config.h"

#include <algorithm>
#include <cmath>

#include "micromix/base/error.h"
#include "micromix/checkpoint/quantization_config.h"

namespace micromix {
namespace {

// Larger than any model's, small enough that products of three stay below 2^63.
constexpr int64_t kMaxSize = 1 << 20;

Architecture parse_architecture(const JsonObject& config) {
  const Json& names = config.at("architectures");
  const std::string expected =
      "one of LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, MistralForCausalLM";
  if (!names.is_array() || names.size() != 1 || !names[0].is_string()) {
    config.fail("architectures", describe(names), "[" + expected + "]");
  }
  const std::string name = names[0].get<std::string>();
  if (name == "LlamaForCausalLM") return Architecture::kLlama;
  if (name == "Qwen2ForCausalLM") return Architecture::kQwen2;
  if (name == "Qwen3ForCausalLM") return Architecture::kQwen3;
  if (name == "MistralForCausalLM") return Architecture::kMistral;
  config.fail("architectures", "'" + name + "'", expected);
}

double positive(const JsonObject& object, const std::string& key) {
  const double value = object.number(key);
  if (!(value > 0) || !std::isfinite(value)) object.fail(key, describe(object.at(key)), "a positive number");
  return value;
}

// The type and factors of rope_parameters, or of rope_scaling; theta is the caller's.
RopeConfig parse_rope_scaling(const JsonObject& object) {
  for (const auto& item : object.json().items()) {
    if (item.value().is_object()) {
      object.fail(item.key(), "an object", "one set of parameters for all layers");
    }
  }
  RopeConfig rope;
  const std::string key = object.has("rope_type") ? "rope_type" : "type";
  const std::string type = object.string_or(key, "default");
  if (type == "linear") {
    rope.type = RopeType::kLinear;
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
  } else if (type != "default") {
    object.fail(key, "'" + type + "'", "default, linear or llama3");
  }
  if (rope.type != RopeType::kDefault) rope.factor = positive(object, "factor");
  if (rope.type == RopeType::kLlama3) {
    rope.low_frequency_factor = positive(object, "low_freq_factor");
    rope.high_frequency_factor = positive(object, "high_freq_factor");
    rope.original_max_position_embeddings =
        object.integer("original_max_position_embeddings", 1, int64_t{1} << 40);
    if (rope.high_frequency_factor <= rope.low_frequency_factor) {
      object.fail("high_freq_factor", describe(object.at("high_freq_factor")),
                  "more than low_freq_factor");
    }
  }
  if (object.number_or("partial_rotary_factor", 1.0) != 1.0) {
    object.fail("partial_rotary_factor", describe(object.at("partial_rotary_factor")), "1");
  }
  return rope;
}

RopeConfig parse_rope(const JsonObject& config) {
  const bool has_scaling = config.has("rope_scaling");
  const bool has_parameters = config.has("rope_parameters");
  if (has_scaling && has_parameters && config.at("rope_scaling") != config.at("rope_parameters")) {
    config.fail("rope_parameters", "rope_scaling too, which differs", "one of them");
  }
  RopeConfig rope;
  if (has_parameters || has_scaling) {
    rope = parse_rope_scaling(config.object(has_parameters ? "rope_parameters" : "rope_scaling"));
  }
  const bool nested_theta =
      has_parameters && config.object("rope_parameters").has("rope_theta");
  if (nested_theta) rope.theta = positive(config.object("rope_parameters"), "rope_theta");
  if (config.has("rope_theta")) {
    const double theta = positive(config, "rope_theta");
    if (nested_theta && theta != rope.theta) {
      config.fail("rope_theta", describe(config.at("rope_theta")),
                  fmt::format("{}, as rope_parameters says", rope.theta));
    }
    rope.theta = theta;
  }
  if (config.number_or("partial_rotary_factor", 1.0) != 1.0) {
    config.fail("partial_rotary_factor", describe(config.at("partial_rotary_factor")), "1");
  }
  return rope;
}

// The window of layers that attend to one only, if any does.
std::optional<int64_t> parse_sliding_window(const JsonObject& config, Architecture architecture,
                                            int64_t layers) {
  bool windowed = architecture == Architecture::kMistral;
  if (architecture == Architecture::kQwen2 || architecture == Architecture::kQwen3) {
    windowed = config.boolean_or("use_sliding_window", false) &&
               config.integer_or("max_window_layers", 28, 0, kMaxSize) < layers;
  }
  if (config.has("layer_types")) {
    const Json& types = config.at("layer_types");
    if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
      config.fail("layer_types", describe(types), fmt::format("{} types", layers));
    }
    windowed = false;
    for (const Json& type : types) {
      if (type == "sliding_attention") {
        windowed = true;
      } else if (type != "full_attention") {
        config.fail("layer_types", describe(type), "full_attention or sliding_attention");
      }
    }
    if (windowed && !config.has("sliding_window")) {
      config.fail("sliding_window", "nothing", "the window of the sliding_attention layers");
    }
  }
  if (!windowed || !config.has("sliding_window")) return std::nullopt;
  return config.integer("sliding_window", 1, int64_t{1} << 40);
}

std::vector<int64_t> parse_eos(const JsonObject& config, int64_t vocab_size) {
  std::vector<int64_t> ids;
  if (!config.has("eos_token_id")) return ids;
  const Json& value = config.at("eos_token_id");
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab_size) {
      config.fail("eos_token_id", describe(id), fmt::format("a token id below {}", vocab_size));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void expect_supported(const JsonObject& config) {
  const std::string activation = config.string_or("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    config.fail("hidden_act", "'" + activation + "'", "silu");
  }
  for (const char* key : {"dtype", "torch_dtype"}) {
    const std::string dtype = config.string_or(key, "bfloat16");
    if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
      config.fail(key, "'" + dtype + "'", "bfloat16, float16 or float32");
    }
  }
}

}  // namespace

ModelConfig parse_config(const Json& json, const std::string& file) {
  const JsonObject object(json, file);
  ModelConfig config;
  config.json = json;
  config.architecture = parse_architecture(object);
  expect_supported(object);
  const auto size = [&](const char* key) { return object.integer(key, 1, kMaxSize); };
  config.vocab_size = object.integer("vocab_size", 1, 1 << 24);
  config.hidden_size = size("hidden_size");
  config.intermediate_size = size("intermediate_size");
  config.num_layers = object.integer("num_hidden_layers", 1, 1 << 14);
  config.num_heads = size("num_attention_heads");
  config.num_kv_heads = object.integer_or("num_key_value_heads", config.num_heads, 1, kMaxSize);
  if (config.num_heads % config.num_kv_heads != 0) {
    object.fail("num_key_value_heads", fmt::format("{}", config.num_kv_heads),
                fmt::format("a divisor of num_attention_heads, {}", config.num_heads));
  }
  if (!object.has("head_dim") && config.hidden_size % config.num_heads != 0) {
    object.fail("num_attention_heads", fmt::format("{}", config.num_heads),
                fmt::format("a divisor of hidden_size, {}, or a head_dim", config.hidden_size));
  }
  config.head_dim =
      object.integer_or("head_dim", config.hidden_size / config.num_heads, 2, 1 << 14);
  if (config.head_dim % 2 != 0) {
    object.fail("head_dim", fmt::format("{}", config.head_dim), "an even number");
  }
  config.max_position_embeddings = object.integer("max_position_embeddings", 1, int64_t{1} << 40);
  config.rms_norm_eps = object.has("rms_norm_eps") ? positive(object, "rms_norm_eps") : 1e-6;
  config.rope = parse_rope(object);
  config.tie_word_embeddings = object.boolean_or("tie_word_embeddings", false);

  const bool attention_bias = object.boolean_or("attention_bias", false);
  config.qk_norm = config.architecture == Architecture::kQwen3;
  config.qkv_bias = config.architecture == Architecture::kQwen2 ||
                    (config.architecture != Architecture::kMistral && attention_bias);
  config.o_bias = (config.architecture == Architecture::kLlama ||
                   config.architecture == Architecture::kQwen3) &&
                  attention_bias;
  config.mlp_bias =
      config.architecture == Architecture::kLlama && object.boolean_or("mlp_bias", false);
  config.sliding_window = parse_sliding_window(object, config.architecture, config.num_layers);
  config.eos_token_ids = parse_eos(object, config.vocab_size);
  if (object.has("quantization_config")) {
    config.quantization = parse_quantization(object.object("quantization_config"));
  }
  return config;
}

ModelConfig load_config(const std::filesystem::path& model) {
  const std::filesystem::path path = model / "config.json";
  ModelConfig config = parse_config(read_json(path), path.string());
  const std::filesystem::path generation = model / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const Json json = read_json(generation);
    const JsonObject object(json, generation.string());
    if (object.has("eos_token_id")) config.eos_token_ids = parse_eos(object, config.vocab_size);
  }
  return config;
}

}  // namespace micromix
