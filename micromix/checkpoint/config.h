// config.json (and generation_config.json) of a Hugging Face model folder, checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "micromix/base/json.h"
#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"

namespace micromix {

enum class Architecture : uint8_t { kLlama, kQwen2, kQwen3, kMistral };

enum class RopeType : uint8_t { kDefault, kLinear, kLlama3 };

// Rotary embedding: both spellings, rope_theta with rope_scaling, and rope_parameters.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;  // linear, llama3
  // llama3
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  int64_t original_max_position_embeddings = 8192;

  bool operator==(const RopeConfig&) const = default;
};

// What activations a weight segment multiplies: BF16 (weight-only) or an MX format.
using ActivationFormat = std::optional<mx::Format>;  // none: BF16

// The `quantization_config` of a checkpoint that micromix wrote (docs/format.md).
struct QuantizationConfig {
  int64_t version = 1;
  int64_t channel_group = 32;
  mx::ScaleRule scale_rule = mx::ScaleRule::kRceil;
  std::map<mx::Format, ActivationFormat>
      activation_formats;                           // per weight format present or possible
  std::vector<std::string> modules_to_not_convert;  // module names, without ".weight"
  double average_bits = 0;
  Json provenance;  // an object: method, target, calibration text hash, …; free-form

  static constexpr int64_t kVersion = 1;

  // The JSON object written to config.json (quant_method, version, block_size, …).
  Json to_json() const;
};

struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;  // even
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;
  // Set where some layer attends to a window only; a longer context is an error.
  std::optional<int64_t> sliding_window;
  // generation_config.json's where it has them, else config.json's; empty where neither has any.
  std::vector<int64_t> eos_token_ids;
  std::optional<QuantizationConfig> quantization;

  Json json;  // config.json as read, to be written again
};

// Reads MODEL/config.json and, where present, MODEL/generation_config.json. Throws Error naming
// file and field: an architecture, activation, rope type or quantization method that is not
// supported, a field missing, out of range or of the wrong type, heads that do not divide, a newer
// version.
ModelConfig load_config(const std::filesystem::path& model);

// The same from parsed JSON; FILE names it in messages. Without generation_config.json.
ModelConfig parse_config(const Json& json, const std::string& file);

}  // namespace micromix
