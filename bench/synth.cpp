// synth: a quantized model folder (docs/format.md) of random weights in the shape of a config.json,
// to measure speed and memory on. Time does not depend on the weights, only on their layout.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench/program.h"
#include "micromix/base/error.h"
#include "micromix/base/json.h"
#include "micromix/checkpoint/config.h"
#include "micromix/checkpoint/names.h"
#include "micromix/checkpoint/output_folder.h"
#include "micromix/checkpoint/shard_tensors.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
#include "micromix/quantize/options.h"
#include "micromix/quantize/quantize_linear.h"

namespace micromix::bench {
namespace {

using Random = std::mt19937_64;

// Of every weight, as transformers initializes them.
constexpr double kDeviation = 0.02;

// The share of every linear's input in each operand format, in percent.
using Split = std::array<double, mx::kOperandFormats.size()>;

struct Options {
  std::string like;
  std::string split;
  std::string lm_head;  // a format; empty: as the config has it, in BF16
  std::string out;
  OutputOptions output;
};

Split parse_split(const std::string& text) {
  Split split{};
  double sum = 0;
  for (const std::string& pair : CLI::detail::split(text, ',')) {
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto format = mx::parse_format(pair.substr(0, equals), mx::kOperandFormats);
    double percent = 0;
    if (!format || equals == pair.size() ||
        !CLI::detail::lexical_cast(pair.substr(equals + 1), percent) || !(percent > 0)) {
      throw CLI::ValidationError("--split",
                                 fmt::format("found '{}', expected FORMAT=PERCENT", pair));
    }
    split[static_cast<size_t>(*format)] = percent;
    sum += percent;
  }
  if (std::fabs(sum - 100) > 0.01) {
    throw CLI::ValidationError("--split", fmt::format("found {} % in all, expected 100", sum));
  }
  return split;
}

// Segments of K channels: shares rounded to whole blocks, what is left over in the first format.
Plan make_plan(int64_t k, const Split& split) {
  Plan plan;
  const auto share = [](double percent) { return percent > 0; };
  const int64_t first = std::find_if(split.begin(), split.end(), share) - split.begin();
  const int64_t blocks = k / mx::kBlockSize;
  int64_t left = blocks;
  for (int64_t i = first + 1; i < static_cast<int64_t>(split.size()); ++i) {
    const double exact = static_cast<double>(blocks) * split[i] / 100;
    const int64_t count = std::min<int64_t>(std::llround(exact), left);
    plan.channels[i] = count * mx::kBlockSize;
    left -= count;
  }
  plan.channels[first] = left * mx::kBlockSize;
  return plan;
}

std::vector<int32_t> random_permutation(int64_t k, Random& random) {
  std::vector<int32_t> permutation(k);
  std::iota(permutation.begin(), permutation.end(), 0);
  std::shuffle(permutation.begin(), permutation.end(), random);
  return permutation;
}

std::vector<mx::BFloat16> random_bfloat16(int64_t count, double mean, Random& random) {
  std::normal_distribution<float> normal(static_cast<float>(mean), static_cast<float>(kDeviation));
  std::vector<mx::BFloat16> values(count);
  for (mx::BFloat16& value : values) value = mx::to_bfloat16(normal(random));
  return values;
}

// A code that is a number: E4M3's NaN becomes the largest.
uint8_t finite(mx::Format format, uint8_t code) {
  return std::isnan(mx::decode_table(format)[code]) ? code ^ 1 : code;
}

// Uniformly random codes; block scales are one of two neighbouring powers of two, as often as gives
// the weights their deviation.
void fill(QuantizedLinear::Segment& segment, Random& random) {
  for (size_t i = 0; i < segment.codes.size(); i += sizeof(uint64_t)) {
    const uint64_t bits = random();
    std::memcpy(&segment.codes[i], &bits, std::min(sizeof bits, segment.codes.size() - i));
  }
  if (mx::traits(segment.format).has_nan) {
    for (uint8_t& code : segment.codes) code = finite(segment.format, code);
  }

  const int codes = 1 << mx::traits(segment.format).bits;
  double square = 0;
  for (int code = 0; code < codes; ++code) {
    const float value =
        mx::decode_table(segment.format)[finite(segment.format, static_cast<uint8_t>(code))];
    square += value * value / codes;
  }
  const double target = kDeviation / std::sqrt(square);
  const int exponent = static_cast<int>(std::floor(std::log2(target)));
  const double ratio = target / std::ldexp(1.0, exponent);  // in [1, 2): squares are 1 and 4
  std::bernoulli_distribution larger((ratio * ratio - 1) / 3);
  for (uint8_t& scale : segment.scales) {
    scale = static_cast<uint8_t>(mx::kScaleBias + exponent + (larger(random) ? 1 : 0));
  }
}

class Synthesizer {
 public:
  Synthesizer(const ModelConfig& config, const Split& split, std::optional<mx::Format> lm_head)
      : config_(config), split_(split), lm_head_(lm_head) {}

  ShardTensors outer() {
    const int64_t hidden = config_.hidden_size;
    ShardTensors shard;
    add_dense(names::kEmbedding, {config_.vocab_size, hidden}, 0, shard);
    add_dense(names::kFinalNorm, {hidden}, 1, shard);
    if (lm_head_) {
      Split all{};
      all[static_cast<size_t>(*lm_head_)] = 100;
      add_quantized(names::kLmHead, config_.vocab_size, make_plan(hidden, all), shard);
    } else if (!config_.tie_word_embeddings) {
      add_dense(names::kLmHead + ".weight", {config_.vocab_size, hidden}, 0, shard);
    }
    return shard;
  }

  ShardTensors layer(int64_t index) {
    ShardTensors shard;
    add_norms(index, shard);
    for (InputRole input : kInputRoles) {
      Plan plan = make_plan(inputs(input), split_);
      plan.permutation = random_permutation(inputs(input), random_);
      for (LinearRole role : kLinearRoles) {
        if (input_of(role) == input) add_linear(names::linear(index, role), role, plan, shard);
      }
    }
    return shard;
  }

  // Of the linears made so far.
  double average_bits() const { return bits_ / elements_; }

 private:
  int64_t inputs(InputRole role) const {
    switch (role) {
      case InputRole::kAttention:
      case InputRole::kMlp:
        return config_.hidden_size;
      case InputRole::kOutput:
        return config_.num_heads * config_.head_dim;
      case InputRole::kDown:
        break;
    }
    return config_.intermediate_size;
  }

  int64_t outputs(LinearRole role) const {
    switch (role) {
      case LinearRole::kQ:
        return config_.num_heads * config_.head_dim;
      case LinearRole::kK:
      case LinearRole::kV:
        return config_.num_kv_heads * config_.head_dim;
      case LinearRole::kGate:
      case LinearRole::kUp:
        return config_.intermediate_size;
      case LinearRole::kO:
      case LinearRole::kDown:
        break;
    }
    return config_.hidden_size;
  }

  bool has_bias(LinearRole role) const {
    switch (input_of(role)) {
      case InputRole::kAttention:
        return config_.qkv_bias;
      case InputRole::kOutput:
        return config_.o_bias;
      case InputRole::kMlp:
      case InputRole::kDown:
        break;
    }
    return config_.mlp_bias;
  }

  void add_dense(const std::string& name, const std::vector<int64_t>& shape, double mean,
                 ShardTensors& shard) {
    const int64_t count =
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    shard.add(name, DType::kBF16, shape, random_bfloat16(count, mean, random_));
  }

  void add_norms(int64_t index, ShardTensors& shard) {
    const std::string prefix = names::layer(index);
    for (const char* norm : {".input_layernorm.weight", ".post_attention_layernorm.weight"}) {
      add_dense(prefix + norm, {config_.hidden_size}, 1, shard);
    }
    if (!config_.qk_norm) return;
    for (const char* norm : {".self_attn.q_norm.weight", ".self_attn.k_norm.weight"}) {
      add_dense(prefix + norm, {config_.head_dim}, 1, shard);
    }
  }

  void add_linear(const std::string& module, LinearRole role, const Plan& plan,
                  ShardTensors& shard) {
    add_quantized(module, outputs(role), plan, shard);
    if (has_bias(role)) add_dense(module + ".bias", {outputs(role)}, 0, shard);
    shard.add(role == LinearRole::kDown ? names::folded_perm(module) : names::input_perm(module),
              DType::kI32, {plan.size()}, plan.permutation);
  }

  void add_quantized(const std::string& module, int64_t n, const Plan& plan, ShardTensors& shard) {
    QuantizedLinear linear = empty_quantized_linear(n, plan);
    for (QuantizedLinear::Segment& segment : linear.segments) {
      fill(segment, random_);
      shard.add(names::codes(module, segment.format), DType::kU8,
                {n, mx::packed_bytes(segment.format, segment.channels)}, segment.codes);
      shard.add(names::scales(module, segment.format), DType::kU8,
                {n, segment.channels / mx::kBlockSize}, segment.scales);
    }
    const double elements = static_cast<double>(n) * static_cast<double>(plan.size());
    elements_ += elements;
    bits_ += elements * plan.average_bits();
  }

  const ModelConfig& config_;
  const Split split_;
  const std::optional<mx::Format> lm_head_;
  Random random_{1};
  double elements_ = 0;
  double bits_ = 0;
};

void expect_whole_blocks(const ModelConfig& config, const std::string& file) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"hidden_size", config.hidden_size},
      {"num_attention_heads * head_dim", config.num_heads * config.head_dim},
      {"intermediate_size", config.intermediate_size}};
  for (const auto& [field, size] : sizes) {
    if (size % mx::kBlockSize != 0) {
      throw_invalid(file, field, fmt::format("{}", size),
                    fmt::format("a multiple of {}", mx::kBlockSize));
    }
  }
}

Json quantized_config(Json json, const Options& options, double average_bits) {
  QuantizationConfig quantization;
  quantization.activation_formats = same_activations();
  if (options.lm_head.empty()) quantization.modules_to_not_convert = {names::kLmHead};
  quantization.average_bits = average_bits;
  quantization.provenance = {{"method", "synth"}, {"split", options.split}};
  if (!options.lm_head.empty()) json["tie_word_embeddings"] = false;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (json.contains(key)) json[key] = "bfloat16";
  }
  json["quantization_config"] = quantization.to_json();
  return json;
}

void run(const Options& options) {
  const Split split = parse_split(options.split);
  const Json json = read_json(options.like);
  const ModelConfig config = parse_config(json, options.like);
  expect_whole_blocks(config, options.like);
  Synthesizer synthesizer(config, split, mx::parse_format(options.lm_head, mx::kOperandFormats));

  const Json identity = {{"command", "synth"}};
  OutputFolder folder(options.like, options.out, identity, config.num_layers + 1, options.output);
  folder.write_shard(0, synthesizer.outer().sorted());
  for (int64_t i = 0; i < config.num_layers; ++i) {
    folder.write_shard(i + 1, synthesizer.layer(i).sorted());
  }
  folder.write_json("config.json", quantized_config(json, options, synthesizer.average_bits()));
  folder.commit();

  const ModelSize size = measure(ModelWeights(options.out));
  fmt::print("average bits           {:.3f}\n", size.average_bits);
  fmt::print("bits per parameter     {:.3f}\n", size.bits_per_parameter);
  fmt::print("size                   {:.2f} MB\n", static_cast<double>(size.bytes) * 1e-6);
  fmt::print("written to             {}\n", options.out);
}

}  // namespace
}  // namespace micromix::bench

int main(int argc, char** argv) {
  CLI::App app("Writes a quantized model folder of random weights, without a tokenizer.", "synth");
  micromix::bench::Options options;
  app.add_option("--like", options.like, "config.json whose shape the model gets")
      ->option_text("CONFIG")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--split", options.split,
                 "Percent of every linear's input in each format: e2m1=62.5,e2m3=37.5")
      ->option_text("SPLIT")
      ->required();
  app.add_option("-o,--out", options.out, "Folder to write; OUT.partial until it is whole")
      ->option_text("OUT")
      ->required();
  app.add_option("--lm-head", options.lm_head,
                 "Quantize the lm_head too (default: BF16, tied where the config says so)")
      ->option_text("FORMAT")
      ->check(CLI::IsMember({"e2m1", "e2m3", "e3m2", "e4m3"}));
  app.add_flag("--force", options.output.force, "Replace OUT and what an interrupted run left");
  return micromix::bench::run_program(app, argc, argv, [&] { micromix::bench::run(options); });
}
