#include "micromix/quantize/pipeline.h"

#include <cassert>
#include <cmath>
#include <regex>

#include "micromix/base/error.h"
#include "micromix/checkpoint/names.h"
#include "micromix/checkpoint/shard_tensors.h"
#include "micromix/model/decoder_layer.h"
#include "micromix/quantize/quantize_linear.h"

namespace micromix {
namespace {

constexpr const char* kErrorsKey = "micromix_output_errors";

std::string activation_name(const ActivationFormat& format) {
  return format ? std::string(mx::name(*format)) : "bf16";
}

// What happens to one layer.
struct LayerPlan {
  std::array<Plan, kInputRoles.size()> plans;
  std::array<bool, kLinearRoles.size()> quantized{};

  const Plan& of(LinearRole role) const { return plans[static_cast<size_t>(input_of(role))]; }
  bool is_quantized(LinearRole role) const { return quantized[static_cast<size_t>(role)]; }
  // The order that down_proj's input comes in, folded into the rows of gate and up.
  std::span<const int32_t> folded() const {
    if (!is_quantized(LinearRole::kDown)) return {};
    return of(LinearRole::kDown).permutation;
  }
  // The order of ROLE's output rows.
  std::span<const int32_t> row_order(LinearRole role) const {
    return input_of(role) == InputRole::kMlp ? folded() : std::span<const int32_t>{};
  }
};

class Pipeline {
 public:
  Pipeline(const ModelWeights& weights, const Statistics* statistics,
           const QuantizeOptions& options)
      : weights_(weights), statistics_(statistics), options_(options) {
    for (const std::string& pattern : options.keep) {
      try {
        keep_.emplace_back(pattern);
      } catch (const std::regex_error& error) {
        throw Error(fmt::format("--keep: found '{}' ({}), expected a regular expression", pattern,
                                error.what()));
      }
    }
    for (int64_t i = 0; i < weights.config.num_layers; ++i) plans_.push_back(plan_layer(i));
  }

  const std::vector<std::string>& kept() const { return kept_; }
  const std::vector<std::string>& not_divisible() const { return not_divisible_; }

  // Bytes that the quantized model will take, without headers.
  int64_t predicted_bytes() const {
    double bytes = 2.0 *
                   static_cast<double>(weights_.config.vocab_size * weights_.config.hidden_size) *
                   (weights_.config.tie_word_embeddings ? 1 : 2);
    for (size_t i = 0; i < plans_.size(); ++i) {
      for (LinearRole role : kLinearRoles) {
        const LinearWeights& linear = weights_.layers[i][role];
        const double bits = plans_[i].is_quantized(role) ? plans_[i].of(role).average_bits() : 16.0;
        bytes += static_cast<double>(linear.n) * static_cast<double>(linear.k) * bits / 8.0;
        bytes += 4.0 * static_cast<double>(linear.k);  // a permutation
      }
    }
    return static_cast<int64_t>(bytes);
  }

  // Of the quantized linears; 0 where there is none.
  double average_bits() const {
    double bits = 0;
    double elements = 0;
    for (size_t i = 0; i < plans_.size(); ++i) {
      for (LinearRole role : kLinearRoles) {
        if (!plans_[i].is_quantized(role)) continue;
        const LinearWeights& linear = weights_.layers[i][role];
        const double size = static_cast<double>(linear.n) * static_cast<double>(linear.k);
        bits += size * plans_[i].of(role).average_bits();
        elements += size;
      }
    }
    return elements > 0 ? bits / elements : 0;
  }

  // Quantizes layer INDEX into SHARD and returns its linears' relative output errors.
  OutputErrors quantize_layer(int64_t index, ShardTensors& shard) const {
    const LayerWeights& layer = weights_.layers[index];
    const LayerPlan& plan = plans_[index];
    OutputErrors errors;
    add_norms(layer, shard);
    for (LinearRole role : kLinearRoles) {
      const LinearWeights& linear = layer[role];
      shard.add_bfloat16(linear.bias, plan.row_order(role));
      if (!plan.is_quantized(role)) {
        shard.add_bfloat16(linear.dense, plan.row_order(role));
        continue;
      }
      const QuantizedLinear quantized =
          quantize_linear(linear, plan.of(role), plan.row_order(role), options_.scale_rule);
      add_quantized(linear.module, quantized, shard);
      const std::vector<int32_t>& permutation = plan.of(role).permutation;
      if (!permutation.empty()) {
        shard.add(role == LinearRole::kDown ? names::folded_perm(linear.module)
                                            : names::input_perm(linear.module),
                  DType::kI32, {linear.k}, permutation);
      }
      if (statistics_ != nullptr) {
        errors[std::string(names::short_name(role))] =
            output_error(linear, quantized, plan.of(role), plan.row_order(role),
                         statistics_->at(index, input_of(role)));
      }
    }
    layer.release();
    return errors;
  }

 private:
  bool is_kept(const std::string& module) const {
    for (const std::regex& pattern : keep_) {
      if (std::regex_search(module, pattern)) return true;
    }
    return false;
  }

  LayerPlan plan_layer(int64_t index) {
    LayerPlan plan;
    for (LinearRole role : kLinearRoles) {
      const LinearWeights& linear = weights_.layers[index][role];
      const bool divisible = linear.k % mx::kBlockSize == 0;
      if (!divisible) not_divisible_.push_back(linear.module);
      const bool quantized = divisible && !is_kept(linear.module);
      if (!quantized) kept_.push_back(linear.module);
      plan.quantized[static_cast<size_t>(role)] = quantized;
      Plan& input_plan = plan.plans[static_cast<size_t>(input_of(role))];
      if (!quantized || input_plan.size() > 0) continue;
      input_plan = statistics_ != nullptr
                       ? allocate(statistics_->at(index, input_of(role)), options_.allocation)
                       : uniform_plan(linear.k, options_.allocation.uniform);
    }
    return plan;
  }

  static void add_quantized(const std::string& module, const QuantizedLinear& quantized,
                            ShardTensors& shard) {
    for (const QuantizedLinear::Segment& segment : quantized.segments) {
      shard.add(names::codes(module, segment.format), DType::kU8,
                {quantized.n, mx::packed_bytes(segment.format, segment.channels)}, segment.codes);
      shard.add(names::scales(module, segment.format), DType::kU8,
                {quantized.n, segment.channels / mx::kBlockSize}, segment.scales);
    }
  }

  // ||Y' - Y||^2 / ||Y||^2 on the kept calibration rows, without bias.
  double output_error(const LinearWeights& linear, const QuantizedLinear& quantized,
                      const Plan& plan, std::span<const int32_t> row_order,
                      const InputStatistics& input) const {
    const kernels::Backend& backend = kernels::reference_backend();
    std::vector<float> x;
    for (mx::BFloat16 value : input.rows) x.push_back(mx::to_float(value));
    kernels::InputPlan input_plan{linear.k, plan.permutation, {}, options_.scale_rule};
    for (const QuantizedLinear::Segment& segment : quantized.segments) {
      input_plan.segments.push_back(
          {options_.activation_formats.at(segment.format), segment.channels});
    }
    LinearWeights without_bias = linear;
    without_bias.bias = nullptr;
    const auto rows = backend.input(input_plan, input.row_count, x.data());
    std::vector<float> exact(input.row_count * linear.n);
    std::vector<float> approximate(exact.size());
    backend.multiply(*prepare(backend, without_bias), *rows, exact.data());
    backend.multiply(*backend.prepare(quantized.view()), *rows, approximate.data());

    double error = 0;
    double norm = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(approximate.size()); ++i) {
      const int64_t row = i / linear.n;
      const int64_t column = row_order.empty() ? i % linear.n : row_order[i % linear.n];
      const double y = exact[row * linear.n + column];
      error += (approximate[i] - y) * (approximate[i] - y);
      norm += y * y;
    }
    return norm > 0 ? error / norm : 0;
  }

  const ModelWeights& weights_;
  const Statistics* statistics_;
  const QuantizeOptions& options_;
  std::vector<std::regex> keep_;
  std::vector<LayerPlan> plans_;
  std::vector<std::string> kept_;
  std::vector<std::string> not_divisible_;
};

// config.json of the result.
Json quantized_config(const ModelConfig& config, const QuantizeOptions& options,
                      const Pipeline& pipeline, const Statistics* statistics) {
  QuantizationConfig quantization;
  quantization.channel_group = options.allocation.channel_group;
  quantization.scale_rule = options.scale_rule;
  quantization.activation_formats = options.activation_formats;
  quantization.modules_to_not_convert = {names::kLmHead};
  quantization.modules_to_not_convert.insert(quantization.modules_to_not_convert.end(),
                                             pipeline.kept().begin(), pipeline.kept().end());
  quantization.average_bits = pipeline.average_bits();
  quantization.provenance = {{"method", method_name(options.allocation)},
                             {"weights", "rtn"},
                             {"options", options.to_json()}};
  if (statistics != nullptr) {
    quantization.provenance["calibration"] = {{"text_hash", statistics->text_hash},
                                              {"samples", statistics->samples},
                                              {"length", statistics->length}};
  }
  Json json = config.json;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (json.contains(key)) json[key] = "bfloat16";
  }
  json["quantization_config"] = quantization.to_json();
  return json;
}

// Root mean square over the layers of the errors noted in the shards.
OutputErrors collect_errors(const OutputFolder& folder, int64_t layers) {
  std::map<std::string, std::pair<double, int64_t>> sums;
  for (int64_t i = 0; i < layers; ++i) {
    const auto metadata = folder.shard_metadata(i + 1);
    const auto it = metadata.find(kErrorsKey);
    if (it == metadata.end()) continue;
    const Json json = parse_json(it->second, kErrorsKey);
    const JsonObject errors(json, kErrorsKey);
    for (const auto& [role, error] : json.items()) {
      sums[role].first += errors.number(role);
      ++sums[role].second;
    }
  }
  OutputErrors errors;
  for (const auto& [role, sum] : sums) {
    errors[role] = std::sqrt(sum.first / static_cast<double>(sum.second));
  }
  return errors;
}

}  // namespace

std::string method_name(const AllocationOptions& options) {
  switch (options.method) {
    case AllocationMethod::kPaper:
      return "paper";
    case AllocationMethod::kReleased:
      return "released";
    case AllocationMethod::kUniform:
      break;
  }
  return fmt::format("uniform:{}", mx::name(options.uniform));
}

std::map<mx::Format, ActivationFormat> same_activations() {
  std::map<mx::Format, ActivationFormat> formats;
  for (mx::Format format : mx::kOperandFormats) formats[format] = format;
  return formats;
}

Json QuantizeOptions::to_json() const {
  Json activations = Json::object();
  for (const auto& [weight, activation] : activation_formats) {
    activations[std::string(mx::name(weight))] = activation_name(activation);
  }
  return {{"method", method_name(allocation)},
          {"fp6", mx::name(allocation.fp6)},
          {"channel_group", allocation.channel_group},
          {"scale_rule", mx::name(scale_rule)},
          {"activations", activations},
          {"keep", keep}};
}

QuantizeReport quantize_model(const ModelWeights& weights, const std::string& model_hash,
                              const Statistics* statistics, const QuantizeOptions& options,
                              const std::filesystem::path& out, const OutputOptions& output,
                              const ProgressFunction& progress) {
  const ModelConfig& config = weights.config;
  assert(statistics != nullptr || options.allocation.method == AllocationMethod::kUniform);
  if (config.quantization) {
    throw Error(fmt::format("{}: quantized already; quantize the BF16 model it came from",
                            weights.store.model().string()));
  }
  const Pipeline pipeline(weights, statistics, options);
  expect_free_space(out, pipeline.predicted_bytes());

  const Json identity = {
      {"command", "quantize"},
      {"options", options.to_json()},
      {"model_hash", model_hash},
      {"calibration_hash", statistics != nullptr ? statistics->text_hash : ""},
      {"calibration_tokens", statistics != nullptr ? statistics->token_ids.size() : size_t{0}}};
  OutputFolder folder(out, identity, config.num_layers + 1, output);
  if (!folder.has_shard(0)) folder.write_shard(0, outer_tensors(weights).sorted());
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if (!folder.has_shard(i + 1)) {
      ShardTensors shard;
      const OutputErrors errors = pipeline.quantize_layer(i, shard);
      folder.write_shard(i + 1, shard.sorted(), {{kErrorsKey, Json(errors).dump()}});
    }
    report(progress, i + 1, config.num_layers);
  }

  folder.copy_side_files(weights.store.model());
  folder.write_json("config.json", quantized_config(config, options, pipeline, statistics));
  QuantizeReport result{
      measure(weights), {}, collect_errors(folder, config.num_layers), pipeline.not_divisible()};
  folder.commit();
  result.after = measure(ModelWeights(out));
  return result;
}

}  // namespace micromix
