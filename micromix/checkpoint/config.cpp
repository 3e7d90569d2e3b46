#include "micromix/checkpoint/config.h"

#include <cmath>
#include <system_error>

#include "micromix/base/error.h"
#include "micromix/checkpoint/quantization_config.h"

namespace micromix {
namespace {

// Larger than any model's, small enough that products of three stay below 2^63.
constexpr int64_t kMaxSize = 1 << 20;
// Of positions; a product with one size stays below 2^63.
constexpr int64_t kMaxPositions = int64_t{1} << 40;

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
  if (!(value > 0) || !std::isfinite(value)) {
    object.fail(key, describe(object.at(key)), "a positive number");
  }
  return value;
}

// The rope type, under either name.
RopeType parse_rope_type(const JsonObject& object, bool required) {
  const std::string key = object.has("rope_type") || !object.has("type") ? "rope_type" : "type";
  const std::string expected = "default, linear or llama3";
  if (required && !object.has(key)) object.fail(key, "nothing", expected);
  const std::string type = object.string_or(key, "default");
  if (object.string_or("type", type) != type) {
    object.fail("type", "'" + object.string("type") + "'", "'" + type + "', as rope_type says");
  }
  if (type == "default") return RopeType::kDefault;
  if (type == "linear") return RopeType::kLinear;
  if (type == "llama3") return RopeType::kLlama3;
  object.fail(key, "'" + type + "'", expected);
}

void expect_full_rotary(const JsonObject& object) {
  if (object.number_or("partial_rotary_factor", 1.0) != 1.0) {
    object.fail("partial_rotary_factor", describe(object.at("partial_rotary_factor")), "1");
  }
}

// The type and factors of rope_parameters, or of rope_scaling; theta is parse_theta's.
RopeConfig parse_rope_factors(const JsonObject& object, bool type_required) {
  for (const auto& item : object.json().items()) {
    if (item.value().is_object()) {
      object.fail(item.key(), "an object", "one set of parameters for all layers");
    }
  }
  expect_full_rotary(object);
  RopeConfig rope;
  rope.type = parse_rope_type(object, type_required);
  if (rope.type != RopeType::kDefault) rope.factor = positive(object, "factor");
  if (rope.type == RopeType::kLlama3) {
    rope.low_frequency_factor = positive(object, "low_freq_factor");
    rope.high_frequency_factor = positive(object, "high_freq_factor");
    rope.original_max_position_embeddings =
        object.integer("original_max_position_embeddings", 1, kMaxPositions);
    if (rope.high_frequency_factor <= rope.low_frequency_factor) {
      object.fail("high_freq_factor", describe(object.at("high_freq_factor")),
                  "more than low_freq_factor");
    }
  }
  return rope;
}

// rope_theta of the config or of one of its rope objects; where several have it, they must agree.
double parse_theta(const JsonObject& config) {
  std::optional<double> theta;
  const auto consider = [&theta](const JsonObject& object) {
    if (!object.has("rope_theta")) return;
    const double stated = positive(object, "rope_theta");
    if (theta && *theta != stated) {
      object.fail("rope_theta", describe(object.at("rope_theta")),
                  fmt::format("{}, as the file says elsewhere", *theta));
    }
    theta = stated;
  };
  consider(config);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has(key)) consider(config.object(key));
  }
  return theta.value_or(10000.0);
}

// transformers 4 writes rope_theta and rope_scaling, transformers 5 rope_parameters.
RopeConfig parse_rope(const JsonObject& config) {
  expect_full_rotary(config);
  std::optional<RopeConfig> rope;
  if (config.has("rope_scaling")) rope = parse_rope_factors(config.object("rope_scaling"), true);
  if (config.has("rope_parameters")) {
    const RopeConfig parameters = parse_rope_factors(config.object("rope_parameters"), false);
    if (rope && *rope != parameters) {
      config.fail("rope_parameters", "rope_scaling too, which differs", "one of them");
    }
    rope = parameters;
  }
  if (!rope) rope.emplace();
  rope->theta = parse_theta(config);
  return *rope;
}

// Whether layer_types has a layer with a window; none where there is no layer_types.
std::optional<bool> parse_layer_types(const JsonObject& config, int64_t layers) {
  if (!config.has("layer_types")) return std::nullopt;
  const Json& types = config.at("layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    config.fail("layer_types",
                types.is_array() ? fmt::format("{} types", types.size()) : describe(types),
                fmt::format("an array of {} types", layers));
  }
  bool windowed = false;
  for (const Json& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      config.fail("layer_types", describe(type), "full_attention or sliding_attention");
    }
    windowed = windowed || type == "sliding_attention";
  }
  return windowed;
}

// The window of layers that attend to one only, if any does.
std::optional<int64_t> parse_sliding_window(const JsonObject& config, Architecture architecture,
                                            int64_t layers) {
  const std::optional<bool> listed = parse_layer_types(config, layers);
  bool windowed = listed.value_or(architecture == Architecture::kMistral);
  if (architecture == Architecture::kQwen2 || architecture == Architecture::kQwen3) {
    const bool enabled = config.boolean_or("use_sliding_window", false);
    if (windowed && !enabled) {
      config.fail("use_sliding_window", "false", "true, as layer_types has sliding_attention");
    }
    const bool reached = config.integer_or("max_window_layers", 28, 0, kMaxSize) < layers;
    windowed = enabled && listed.value_or(reached);
  }
  if (!windowed) return std::nullopt;
  if (config.has("sliding_window")) return config.integer("sliding_window", 1, kMaxPositions);
  if (listed) {
    config.fail("sliding_window", "nothing", "the window of the sliding_attention layers");
  }
  // null says that there is no window; where the key is absent, transformers has one.
  constexpr int64_t kDefaultWindow = 4096;
  if (config.json().contains("sliding_window")) return std::nullopt;
  return kDefaultWindow;
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
  if (config.integer_or("pretraining_tp", 1, INT64_MIN, INT64_MAX) != 1) {
    config.fail("pretraining_tp", describe(config.at("pretraining_tp")), "1");
  }
}

// num_heads, num_kv_heads and head_dim; hidden_size is known.
void parse_heads(const JsonObject& object, ModelConfig& config) {
  config.num_heads = object.integer("num_attention_heads", 1, kMaxSize);
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
      object.integer_or("head_dim", config.hidden_size / config.num_heads, 1, kMaxSize);
  if (config.head_dim % 2 != 0) {
    object.fail("head_dim", fmt::format("{}", config.head_dim), "an even number");
  }
  if (config.num_heads * config.head_dim > kMaxSize) {
    object.fail("num_attention_heads", fmt::format("{}", config.num_heads),
                fmt::format("at most {} heads of {}", kMaxSize / config.head_dim, config.head_dim));
  }
}

// Which linears have a bias, and whether queries and keys have norms.
void parse_layer_shape(const JsonObject& object, ModelConfig& config) {
  const Architecture architecture = config.architecture;
  const bool llama = architecture == Architecture::kLlama;
  const bool qwen3 = architecture == Architecture::kQwen3;
  // The others ignore these keys.
  const bool attention_bias = object.boolean_or("attention_bias", false) && (llama || qwen3);
  config.qkv_bias = attention_bias || architecture == Architecture::kQwen2;
  config.o_bias = attention_bias;
  config.mlp_bias = object.boolean_or("mlp_bias", false) && llama;
  config.qk_norm = qwen3;
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
  parse_heads(object, config);
  config.max_position_embeddings = object.integer("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = object.has("rms_norm_eps") ? positive(object, "rms_norm_eps") : 1e-6;
  config.rope = parse_rope(object);
  config.tie_word_embeddings = object.boolean_or("tie_word_embeddings", false);
  parse_layer_shape(object, config);
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
  std::error_code ignored;
  if (std::filesystem::exists(generation, ignored)) {
    const Json json = read_json(generation);
    const JsonObject object(json, generation.string());
    if (object.has("eos_token_id")) config.eos_token_ids = parse_eos(object, config.vocab_size);
  }
  return config;
}

}  // namespace micromix
