#include "micromix/model/decoder_layer.h"

#include <algorithm>

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

std::unique_ptr<kernels::Norm> prepare_norm(const kernels::Backend& backend, const TensorView& gain,
                                            const ModelConfig& config) {
  return backend.prepare_norm(to_floats(gain), config.rms_norm_eps);
}

std::unique_ptr<kernels::Linear> prepare(const kernels::Backend& backend,
                                         const LinearWeights& weights,
                                         const kernels::InputPlan& plan) {
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
  return backend.prepare(mixed, plan);
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
    : backend_(backend),
      rope_(config.rope, config.head_dim),
      attention_norm_(prepare_norm(backend, *weights.attention_norm, config)),
      mlp_norm_(prepare_norm(backend, *weights.mlp_norm, config)) {
  if (weights.q_norm != nullptr) q_norm_ = prepare_norm(backend, *weights.q_norm, config);
  if (weights.k_norm != nullptr) k_norm_ = prepare_norm(backend, *weights.k_norm, config);
  for (InputRole input : kInputRoles) {
    std::vector<const LinearWeights*> readers;
    for (LinearRole role : kLinearRoles) {
      if (input_of(role) == input) readers.push_back(&weights[role]);
    }
    const kernels::InputPlan plan = input_plan(config.quantization, readers);
    for (LinearRole role : kLinearRoles) {
      if (input_of(role) != input) continue;
      linears_[static_cast<size_t>(role)] = prepare(backend, weights[role], plan);
    }
    plans_[static_cast<size_t>(input)] = backend.prepare(plan);
  }
}

void DecoderLayer::replace(LinearRole role, kernels::InputPlan plan,
                           std::unique_ptr<kernels::Linear> linear) {
  plans_[static_cast<size_t>(input_of(role))] = backend_.prepare(std::move(plan));
  linears_[static_cast<size_t>(role)] = std::move(linear);
}

void DecoderLayer::forward(const kernels::Rows& hidden, const kernels::Buffer* addend,
                           kernels::KeyValues& cache, Workspace& workspace,
                           const InputObserver& observer) const {
  attention(hidden, addend, cache, workspace, observer);
  mlp(hidden, workspace, observer);
}

void DecoderLayer::observe(const InputObserver& observer, InputRole role, int64_t m,
                           const kernels::Input& input) const {
  if (observer) observer(role, m, backend_.rows(input));
}

void DecoderLayer::multiply(LinearRole role, const kernels::Input& input,
                            kernels::Buffer& y) const {
  const kernels::Product product{&linear(role), &y};
  backend_.multiply({&product, 1}, input);
}

void DecoderLayer::attention(const kernels::Rows& hidden, const kernels::Buffer* addend,
                             kernels::KeyValues& cache, Workspace& workspace,
                             const InputObserver& observer) const {
  const int64_t m = hidden.count;
  kernels::Input& input = *workspace.input;
  backend_.set_rmsnorm(input, plan(InputRole::kAttention), hidden, addend, *attention_norm_);
  observe(observer, InputRole::kAttention, m, input);
  kernels::Buffer &q = *workspace.q, &k = *workspace.k, &v = *workspace.v;
  const kernels::Product products[] = {
      {&linear(LinearRole::kQ), &q}, {&linear(LinearRole::kK), &k}, {&linear(LinearRole::kV), &v}};
  backend_.multiply(products, input);
  rope_.prepare(cache.length(), m, backend_, workspace.rotations);
  backend_.place_heads(q, q_norm_.get(), *workspace.rotations.angles);
  backend_.place_heads(k, k_norm_.get(), *workspace.rotations.angles);
  cache.append(k, v);

  backend_.attend(cache, q, *workspace.attended);
  backend_.set(input, plan(InputRole::kOutput), *workspace.attended);
  observe(observer, InputRole::kOutput, m, input);
  multiply(LinearRole::kO, input, *workspace.output);
}

void DecoderLayer::mlp(const kernels::Rows& hidden, Workspace& workspace,
                       const InputObserver& observer) const {
  const int64_t m = hidden.count;
  kernels::Input& input = *workspace.input;
  backend_.set_rmsnorm(input, plan(InputRole::kMlp), hidden, workspace.output.get(), *mlp_norm_);
  observe(observer, InputRole::kMlp, m, input);
  const kernels::Product products[] = {{&linear(LinearRole::kGate), workspace.gate.get()},
                                       {&linear(LinearRole::kUp), workspace.up.get()}};
  backend_.multiply(products, input);
  backend_.set_swiglu(input, plan(InputRole::kDown), *workspace.gate, *workspace.up);
  observe(observer, InputRole::kDown, m, input);
  multiply(LinearRole::kDown, input, *workspace.output);
}

}  // namespace micromix
