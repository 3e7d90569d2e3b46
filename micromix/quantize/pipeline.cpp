#include "micromix/quantize/pipeline.h"

#include <cassert>
#include <cmath>
#include <optional>

#include "micromix/base/error.h"
#include "micromix/checkpoint/names.h"
#include "micromix/checkpoint/shard_tensors.h"
#include "micromix/model/decoder_layer.h"
#include "micromix/quantize/calibration_pass.h"
#include "micromix/quantize/gptq.h"
#include "micromix/quantize/simulated_layer.h"

namespace micromix {
namespace {

constexpr const char* kErrorsKey = "micromix_output_errors";

void add_quantized(const std::string& module, const QuantizedLinear& quantized,
                   ShardTensors& shard) {
  for (const QuantizedLinear::Segment& segment : quantized.segments) {
    shard.add(names::codes(module, segment.format), DType::kU8,
              {quantized.n, mx::packed_bytes(segment.format, segment.channels)}, segment.codes);
    shard.add(names::scales(module, segment.format), DType::kU8,
              {quantized.n, segment.channels / mx::kBlockSize}, segment.scales);
  }
}

// What lies outside the layers.
ShardTensors quantize_outer(const ModelWeights& weights, const QuantizeOptions& options,
                            const ModelPlan& plan) {
  ShardTensors shard = outer_tensors(weights);
  const LinearWeights& lm_head = weights.lm_head;
  if (plan.lm_head.size() > 0) {
    add_quantized(lm_head.module, quantize_linear(lm_head, plan.lm_head, {}, options.scale_rule),
                  shard);
    lm_head.release();
  } else if (!weights.config.tie_word_embeddings) {
    shard.add_bfloat16(lm_head.dense);
  }
  return shard;
}

using LayerMoments = std::array<std::optional<InputMoments>, kInputRoles.size()>;

class LayerQuantizer {
 public:
  LayerQuantizer(const ModelWeights& weights, const Statistics* statistics,
                 const QuantizeOptions& options, const ModelPlan& plan)
      : weights_(weights), statistics_(statistics), options_(options), plan_(plan) {}

  // The moments of layer INDEX's inputs, to be gathered for GPTQ; none where nothing is quantized.
  LayerMoments moments(int64_t index) const {
    LayerMoments result;
    for (InputRole role : kInputRoles) {
      const Plan& plan = plan_.layers[index].plans[static_cast<size_t>(role)];
      if (plan.size() > 0) result[static_cast<size_t>(role)].emplace(input_plan(plan, options_));
    }
    return result;
  }

  // Quantizes layer INDEX into SHARD and returns its linears' relative output errors. MOMENTS are
  // those of its inputs where weights are rounded by GPTQ; each is dropped once used.
  OutputErrors quantize_layer(int64_t index, LayerMoments moments, ShardTensors& shard) const {
    const LayerWeights& layer = weights_.layers[index];
    const LayerPlan& plan = plan_.layers[index];
    OutputErrors errors;
    add_norms(layer, shard);
    for (InputRole input : kInputRoles) {
      std::optional<InputMoments>& of_input = moments[static_cast<size_t>(input)];
      std::optional<GptqFactor> factor;
      if (of_input) factor.emplace(*of_input, plan.plans[static_cast<size_t>(input)]);
      for (LinearRole role : kLinearRoles) {
        if (input_of(role) != input) continue;
        const LinearWeights& linear = layer[role];
        shard.add_bfloat16(linear.bias, plan.row_order(role));
        if (!plan.is_quantized(role)) {
          shard.add_bfloat16(linear.dense, plan.row_order(role));
          continue;
        }
        const QuantizedLinear quantized =
            factor
                ? quantize_linear_gptq(linear, plan.of(role), plan.row_order(role),
                                       options_.scale_rule, *factor)
                : quantize_linear(linear, plan.of(role), plan.row_order(role), options_.scale_rule);
        add_quantized(linear.module, quantized, shard);
        add_permutation(linear, role, plan.of(role).permutation, shard);
        if (statistics_ != nullptr) {
          errors[std::string(names::short_name(role))] =
              output_error(linear, quantized, plan.of(role), plan.row_order(role),
                           statistics_->at(index, input));
        }
      }
      factor.reset();
      of_input.reset();
    }
    layer.release();
    return errors;
  }

 private:
  static void add_permutation(const LinearWeights& linear, LinearRole role,
                              const std::vector<int32_t>& permutation, ShardTensors& shard) {
    if (permutation.empty()) return;
    shard.add(role == LinearRole::kDown ? names::folded_perm(linear.module)
                                        : names::input_perm(linear.module),
              DType::kI32, {linear.k}, permutation);
  }

  // ||Y' - Y||^2 / ||Y||^2 on the kept calibration rows, without bias.
  double output_error(const LinearWeights& linear, const QuantizedLinear& quantized,
                      const Plan& plan, std::span<const int32_t> row_order,
                      const InputStatistics& input) const {
    const kernels::Backend& backend = kernels::reference_backend();
    std::vector<float> x;
    for (mx::BFloat16 value : input.rows) x.push_back(mx::to_float(value));
    LinearWeights without_bias = linear;
    without_bias.bias = nullptr;
    const kernels::InputPlan of_input = input_plan(plan, options_);
    const auto rows = backend.input(of_input, input.row_count, x.data());
    std::vector<float> exact(input.row_count * linear.n);
    std::vector<float> approximate(exact.size());
    backend.multiply(*prepare(backend, without_bias, of_input), *rows, exact.data());
    backend.multiply(*backend.prepare(quantized.view(), of_input), *rows, approximate.data());

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
  const ModelPlan& plan_;
};

Json calibration_json(const Statistics& statistics) {
  return {{"text_hash", statistics.text_hash},
          {"samples", statistics.samples},
          {"length", statistics.length}};
}

// config.json of the result.
Json quantized_config(const ModelWeights& weights, const QuantizeOptions& options,
                      const ModelPlan& plan, const Statistics* statistics) {
  QuantizationConfig quantization;
  quantization.channel_group = options.allocation.channel_group;
  quantization.scale_rule = options.scale_rule;
  quantization.activation_formats = options.activation_formats;
  quantization.modules_to_not_convert = plan.kept;
  quantization.average_bits = average_bits(plan, weights);
  quantization.provenance = {{"method", method_name(options.allocation)},
                             {"weights", name(options.weights)},
                             {"options", options.to_json()}};
  if (statistics != nullptr) quantization.provenance["calibration"] = calibration_json(*statistics);
  Json json = weights.config.json;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (json.contains(key)) json[key] = "bfloat16";
  }
  if (plan.lm_head.size() > 0) json["tie_word_embeddings"] = false;
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

void expect_quantizable(const ModelWeights& weights, const QuantizeOptions& options,
                        const std::filesystem::path& out, const OutputOptions& output) {
  if (weights.config.quantization) {
    throw Error(fmt::format("{}: quantized already; quantize the BF16 model it came from",
                            weights.store.model().string()));
  }
  expect_usable_output(weights.store.model(), out, output);
  QuantizeOptions narrowest = options;
  if (options.allocation.method != AllocationMethod::kUniform) {
    narrowest.allocation.method = AllocationMethod::kUniform;
    narrowest.allocation.uniform = mx::Format::kE2M1;
  }
  expect_free_space(out,
                    predicted_bytes(plan_model(weights, nullptr, narrowest, nullptr), weights));
}

QuantizeReport quantize_model(const ModelWeights& weights, const std::string& model_hash,
                              const Statistics* statistics, const QuantizeOptions& options,
                              const std::filesystem::path& out, const OutputOptions& output,
                              const ProgressFunction& progress) {
  const ModelConfig& config = weights.config;
  const bool gptq = options.weights == WeightRounding::kGptq;
  assert(statistics != nullptr ||
         (options.allocation.method == AllocationMethod::kUniform && !gptq));
  expect_quantizable(weights, options, out, output);
  const ModelPlan plan = plan_model(weights, statistics, options, progress);
  expect_free_space(out, predicted_bytes(plan, weights));

  // The plan stands for what the statistics say of the model.
  Json identity = {{"command", "quantize"},
                   {"options", options.to_json()},
                   {"model_hash", model_hash},
                   {"plan_hash", plan_hash(plan)}};
  if (statistics != nullptr) {
    identity["calibration"] = calibration_json(*statistics);
    identity["calibration"]["token_hash"] =
        content_hash(std::as_bytes(std::span(statistics->token_ids)));
  }
  OutputFolder folder(weights.store.model(), out, identity, config.num_layers + 1, output);
  if (!folder.has_shard(0)) folder.write_shard(0, quantize_outer(weights, options, plan).sorted());
  const LayerQuantizer quantizer(weights, statistics, options, plan);
  std::optional<CalibrationPass> pass;
  if (gptq) pass.emplace(weights, statistics->token_ids, statistics->length);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if (!folder.has_shard(i + 1)) {
      LayerMoments moments;
      if (pass) {
        // Layers that an interrupted run has finished are only run.
        while (pass->next_layer() < i) pass->advance(nullptr, nullptr);
        moments = quantizer.moments(i);
        pass->advance(
            [&](InputRole role, int64_t m, std::span<const float> rows) {
              auto& of_input = moments[static_cast<size_t>(role)];
              if (of_input) of_input->add(m, rows.data());
            },
            nullptr);
      }
      ShardTensors shard;
      const OutputErrors errors = quantizer.quantize_layer(i, std::move(moments), shard);
      folder.write_shard(i + 1, shard.sorted(), {{kErrorsKey, Json(errors).dump()}});
    }
    report(progress, i + 1, config.num_layers);
  }

  folder.copy_side_files();
  folder.write_json("config.json", quantized_config(weights, options, plan, statistics));
  QuantizeReport result{measure(weights),
                        {},
                        collect_errors(folder, config.num_layers),
                        plan.not_divisible,
                        plan.exhausted,
                        plan.measured_kl};
  folder.commit();
  result.after = measure(ModelWeights(out));
  return result;
}

}  // namespace micromix
