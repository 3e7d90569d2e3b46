#include "micromix/model/decoder_layer.h"

#include <algorithm>
#include <cmath>

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

}  // namespace

kernels::DenseWeight dense_view(const TensorView& tensor, std::vector<float> bias) {
  return {tensor.shape[0], tensor.shape[1], dense_type(tensor.dtype), tensor.bytes,
          std::move(bias)};
}

kernels::AttentionShape attention_shape(const ModelConfig& config) {
  return {config.num_heads, config.num_kv_heads, config.head_dim};
}

std::unique_ptr<kernels::Linear> prepare(const kernels::Backend& backend,
                                         const LinearWeights& weights) {
  if (!weights.quantized()) {
    return backend.prepare(dense_view(*weights.dense, optional_floats(weights.bias)));
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

void DecoderLayer::forward(int64_t m, float* hidden, kernels::KeyValues& cache,
                           Workspace& workspace, const InputObserver& observer) const {
  attention(m, hidden, cache, workspace, observer);
  mlp(m, hidden, workspace, observer);
}

void DecoderLayer::observe(const InputObserver& observer, InputRole role, int64_t m,
                           const kernels::Input& input) const {
  if (observer) observer(role, m, backend_.rows(input));
}

void DecoderLayer::attention(int64_t m, float* hidden, kernels::KeyValues& cache,
                             Workspace& workspace, const InputObserver& observer) const {
  kernels::Input& input = *workspace.input;
  backend_.set_rmsnorm(input, plan(InputRole::kAttention), m, hidden, attention_norm_,
                       static_cast<float>(config_.rms_norm_eps));
  observe(observer, InputRole::kAttention, m, input);
  const int64_t width = config_.num_heads * config_.head_dim;
  const int64_t kv_width = config_.num_kv_heads * config_.head_dim;
  float* const q = workspace.q.resize(m * width);
  float* const k = workspace.k.resize(m * kv_width);
  float* const v = workspace.v.resize(m * kv_width);
  const kernels::Product products[] = {
      {&linear(LinearRole::kQ), q}, {&linear(LinearRole::kK), k}, {&linear(LinearRole::kV), v}};
  backend_.multiply(products, input);
  rope_.prepare(cache.length(), m, workspace.rotations);
  place_heads(workspace.rotations, config_.num_heads, q_norm_, q);
  place_heads(workspace.rotations, config_.num_kv_heads, k_norm_, k);
  cache.append(m, k, v);

  float* const attended = workspace.attended.resize(m * width);
  backend_.attend(cache, m, q, attended);
  backend_.set(input, plan(InputRole::kOutput), m, attended);
  observe(observer, InputRole::kOutput, m, input);
  add_product(LinearRole::kO, m, workspace, hidden);
}

void DecoderLayer::mlp(int64_t m, float* hidden, Workspace& workspace,
                       const InputObserver& observer) const {
  kernels::Input& input = *workspace.input;
  backend_.set_rmsnorm(input, plan(InputRole::kMlp), m, hidden, mlp_norm_,
                       static_cast<float>(config_.rms_norm_eps));
  observe(observer, InputRole::kMlp, m, input);
  float* const gate = workspace.gate.resize(m * config_.intermediate_size);
  float* const up = workspace.up.resize(m * config_.intermediate_size);
  const kernels::Product products[] = {{&linear(LinearRole::kGate), gate},
                                       {&linear(LinearRole::kUp), up}};
  backend_.multiply(products, input);
  backend_.set_swiglu(input, plan(InputRole::kDown), m, gate, up);
  observe(observer, InputRole::kDown, m, input);
  add_product(LinearRole::kDown, m, workspace, hidden);
}

void DecoderLayer::add_product(LinearRole role, int64_t m, Workspace& workspace,
                               float* hidden) const {
  const int64_t size = m * config_.hidden_size;
  float* const y = workspace.output.resize(size);
  backend_.multiply(linear(role), *workspace.input, y);
#pragma omp parallel for schedule(static) if (m > 1)
  for (int64_t i = 0; i < size; ++i) hidden[i] += y[i];
}

void DecoderLayer::place_heads(const Rotations& rotations, int64_t heads,
                               std::span<const float> gain, float* x) const {
  const int64_t head_dim = config_.head_dim;
#pragma omp parallel for schedule(static) if (rotations.count > 1)
  for (int64_t row = 0; row < rotations.count; ++row) {
    float* vectors = x + row * heads * head_dim;
    for (int64_t head = 0; head < heads && !gain.empty(); ++head) {
      float* vector = vectors + head * head_dim;
      double squares = 0;
      for (int64_t i = 0; i < head_dim; ++i) squares += static_cast<double>(vector[i]) * vector[i];
      const double mean = squares / static_cast<double>(head_dim);
      const float factor = static_cast<float>(1.0 / std::sqrt(mean + config_.rms_norm_eps));
      for (int64_t i = 0; i < head_dim; ++i) vector[i] = vector[i] * factor * gain[i];
    }
    rope_.rotate(rotations, row, heads, vectors);
  }
}

}  // namespace micromix
