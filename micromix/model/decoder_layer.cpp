#include "micromix/model/decoder_layer.h"

#include <algorithm>
#include <cmath>

#include "micromix/model/attention.h"

namespace micromix {
namespace {

std::vector<float> optional_floats(const TensorView* tensor) {
  return tensor == nullptr ? std::vector<float>{} : to_floats(*tensor);
}

kernels::DenseType dense_type(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return kernels::DenseType::kF16;
    case DType::kF32:
      return kernels::DenseType::kF32;
    default:
      return kernels::DenseType::kBF16;
  }
}

void add(std::span<const float> values, float* to) {
  for (size_t i = 0; i < values.size(); ++i) to[i] += values[i];
}

}  // namespace

std::unique_ptr<kernels::Linear> prepare(const kernels::Backend& backend,
                                         const LinearWeights& weights) {
  if (!weights.quantized()) {
    return backend.prepare(
        kernels::DenseWeight{weights.n, weights.k, dense_type(weights.dense->dtype),
                             weights.dense->bytes, optional_floats(weights.bias)});
  }
  kernels::MixedWeight mixed;
  mixed.n = weights.n;
  mixed.k = weights.k;
  mixed.bias = optional_floats(weights.bias);
  for (const LinearWeights::Segment& segment : weights.segments) {
    mixed.segments.push_back(
        {segment.format, segment.channels, segment.codes->octets(), segment.scales->octets()});
  }
  return backend.prepare(mixed);
}

kernels::InputPlan input_plan(const std::optional<QuantizationConfig>& quantization,
                              std::span<const LinearWeights* const> readers) {
  kernels::InputPlan plan;
  plan.k = readers.front()->k;
  for (const LinearWeights* reader : readers) {
    if (!reader->quantized()) continue;
    plan.permutation = reader->plan.permutation;
    plan.scale_rule = quantization->scale_rule;
    for (const LinearWeights::Segment& segment : reader->segments) {
      plan.segments.push_back(
          {segment.format, quantization->activation_formats.at(segment.format), segment.channels});
    }
    break;
  }
  plan.keep_rows = std::any_of(readers.begin(), readers.end(),
                               [](const LinearWeights* reader) { return !reader->quantized(); });
  return plan;
}

DecoderLayer::DecoderLayer(const LayerWeights& weights, const ModelConfig& config,
                           const kernels::Backend& backend)
    : config_(config),
      backend_(backend),
      rope_(config.rope, config.head_dim),
      attention_norm_(to_floats(*weights.attention_norm)),
      mlp_norm_(to_floats(*weights.mlp_norm)),
      q_norm_(optional_floats(weights.q_norm)),
      k_norm_(optional_floats(weights.k_norm)) {
  for (LinearRole role : kLinearRoles) {
    linears_[static_cast<size_t>(role)] = prepare(backend, weights[role]);
  }
  for (InputRole input : kInputRoles) {
    std::vector<const LinearWeights*> readers;
    for (LinearRole role : kLinearRoles) {
      if (input_of(role) == input) readers.push_back(&weights[role]);
    }
    plans_[static_cast<size_t>(input)] = input_plan(config.quantization, readers);
  }
}

void DecoderLayer::replace(LinearRole role, kernels::InputPlan plan,
                           std::unique_ptr<kernels::Linear> linear) {
  plans_[static_cast<size_t>(input_of(role))] = std::move(plan);
  linears_[static_cast<size_t>(role)] = std::move(linear);
}

void DecoderLayer::forward(int64_t m, float* hidden, KvLayer& cache,
                           const InputObserver& observer) const {
  attention(m, hidden, cache, observer);
  mlp(m, hidden, observer);
}

std::vector<float> DecoderLayer::multiply(LinearRole role, const kernels::Input& input,
                                          int64_t m) const {
  const kernels::Linear& linear = *linears_[static_cast<size_t>(role)];
  std::vector<float> y(m * linear.n());
  backend_.multiply(linear, input, y.data());
  return y;
}

void DecoderLayer::observe(const InputObserver& observer, InputRole role, int64_t m,
                           const kernels::Input& input) const {
  if (observer) observer(role, m, backend_.rows(input));
}

void DecoderLayer::attention(int64_t m, float* hidden, KvLayer& cache,
                             const InputObserver& observer) const {
  const auto input =
      backend_.input_rmsnorm(plans_[static_cast<size_t>(InputRole::kAttention)], m, hidden,
                             attention_norm_, static_cast<float>(config_.rms_norm_eps));
  observe(observer, InputRole::kAttention, m, *input);
  std::vector<float> q = multiply(LinearRole::kQ, *input, m);
  std::vector<float> k = multiply(LinearRole::kK, *input, m);
  const std::vector<float> v = multiply(LinearRole::kV, *input, m);
  place_heads(m, config_.num_heads, cache.length(), q_norm_, q.data());
  place_heads(m, config_.num_kv_heads, cache.length(), k_norm_, k.data());
  cache.append(m, k.data(), v.data());

  std::vector<float> attended(q.size());
  attend(config_, m, q.data(), cache, attended.data());
  const auto output =
      backend_.input(plans_[static_cast<size_t>(InputRole::kOutput)], m, attended.data());
  observe(observer, InputRole::kOutput, m, *output);
  add(multiply(LinearRole::kO, *output, m), hidden);
}

void DecoderLayer::mlp(int64_t m, float* hidden, const InputObserver& observer) const {
  const auto input = backend_.input_rmsnorm(plans_[static_cast<size_t>(InputRole::kMlp)], m, hidden,
                                            mlp_norm_, static_cast<float>(config_.rms_norm_eps));
  observe(observer, InputRole::kMlp, m, *input);
  const std::vector<float> gate = multiply(LinearRole::kGate, *input, m);
  const std::vector<float> up = multiply(LinearRole::kUp, *input, m);
  const auto down = backend_.input_swiglu(plans_[static_cast<size_t>(InputRole::kDown)], m,
                                          gate.data(), up.data());
  observe(observer, InputRole::kDown, m, *down);
  add(multiply(LinearRole::kDown, *down, m), hidden);
}

void DecoderLayer::place_heads(int64_t m, int64_t heads, int64_t position,
                               std::span<const float> gain, float* x) const {
  const int64_t head_dim = config_.head_dim;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    float* vectors = x + row * heads * head_dim;
    for (int64_t head = 0; head < heads && !gain.empty(); ++head) {
      float* vector = vectors + head * head_dim;
      double squares = 0;
      for (int64_t i = 0; i < head_dim; ++i) squares += static_cast<double>(vector[i]) * vector[i];
      const double mean = squares / static_cast<double>(head_dim);
      const float factor = static_cast<float>(1.0 / std::sqrt(mean + config_.rms_norm_eps));
      for (int64_t i = 0; i < head_dim; ++i) vector[i] = vector[i] * factor * gain[i];
    }
    rope_.rotate(position + row, heads, vectors);
  }
}

}  // namespace micromix
