#include "micromix/checkpoint/model_weights.h"

#include <algorithm>
#include <set>

#include "micromix/base/error.h"
#include "micromix/checkpoint/names.h"
#include "micromix/mx/bfloat16.h"

namespace micromix {
namespace {

// Finds tensors, checks them and remembers which were used.
class Finder {
 public:
  Finder(const ModelConfig& config, const TensorStore& store) : config_(config), store_(store) {}

  // A dense tensor of a float dtype and this shape.
  const TensorView* floats(const std::string& name, std::vector<int64_t> shape) {
    const TensorView& tensor = store_.at(name);
    if (tensor.dtype != DType::kBF16 && tensor.dtype != DType::kF16 &&
        tensor.dtype != DType::kF32) {
      throw_invalid(tensor.file->path().string(), name, std::string(micromix::name(tensor.dtype)),
                    "BF16, F16 or F32");
    }
    tensor.expect(tensor.dtype, shape);
    used_.insert(name);
    return &tensor;
  }

  const TensorView* exact(const std::string& name, DType dtype, std::vector<int64_t> shape) {
    const TensorView& tensor = store_.at(name);
    tensor.expect(dtype, shape);
    used_.insert(name);
    return &tensor;
  }

  LinearWeights linear(const std::string& module, int64_t n, int64_t k, bool bias) {
    LinearWeights linear;
    linear.module = module;
    linear.n = n;
    linear.k = k;
    if (bias) linear.bias = floats(module + ".bias", {n});
    if (config_.quantization && store_.find(module + ".weight") == nullptr) {
      find_segments(linear);
    } else {
      linear.dense = floats(module + ".weight", {n, k});
    }
    return linear;
  }

  // Throws unless every tensor of the files has a role.
  void expect_all_used() const {
    for (const auto& [name, tensor] : store_.tensors()) {
      const bool known_leftover =
          name.ends_with(".rotary_emb.inv_freq") ||  // a buffer that older exports kept
          (config_.tie_word_embeddings && name == names::kLmHead + ".weight");
      if (!known_leftover && !used_.contains(name)) {
        throw_invalid(tensor->file->path().string(), name,
                      "a tensor that config.json has no place for",
                      "only the tensors of the configured architecture");
      }
    }
  }

 private:
  void find_segments(LinearWeights& linear) {
    for (size_t i = 0; i < mx::kOperandFormats.size(); ++i) {
      const mx::Format format = mx::kOperandFormats[i];
      const std::string name = names::codes(linear.module, format);
      const TensorView* codes = store_.find(name);
      if (codes == nullptr) continue;
      if (!config_.quantization->activation_formats.contains(format)) {
        throw_invalid(config_file(), "quantization_config.activation_formats",
                      fmt::format("nothing for {}", mx::name(format)),
                      fmt::format("the activation format that {} multiplies", name));
      }
      const int64_t channels = channels_of(*codes, format, linear);
      linear.segments.push_back(
          {format, channels,
           exact(name, DType::kU8, {linear.n, mx::packed_bytes(format, channels)}),
           exact(names::scales(linear.module, format), DType::kU8,
                 {linear.n, channels / mx::kBlockSize})});
      linear.plan.channels[i] = channels;
    }
    if (linear.plan.size() != linear.k) {
      throw_invalid(store_.model().string(), linear.module,
                    fmt::format("segments of {} channels in all", linear.plan.size()),
                    fmt::format("{}, the linear's input size, or a tensor {}.weight", linear.k,
                                linear.module));
    }
    if (store_.find(names::input_perm(linear.module)) != nullptr) {
      linear.plan.permutation = permutation(names::input_perm(linear.module), linear.k);
    }
    if (store_.find(names::folded_perm(linear.module)) != nullptr) {
      linear.folded_perm = permutation(names::folded_perm(linear.module), linear.k);
    }
  }

  // The channels that a [n, bytes] tensor of codes holds.
  static int64_t channels_of(const TensorView& codes, mx::Format format,
                             const LinearWeights& linear) {
    const int64_t bits = mx::traits(format).bits;
    const int64_t block_bytes = mx::packed_bytes(format, mx::kBlockSize);
    if (codes.shape.size() != 2 || codes.shape[1] <= 0 || codes.shape[1] % block_bytes != 0 ||
        codes.shape[1] * 8 / bits > linear.k) {
      throw_invalid(codes.file->path().string(), codes.name, "shape " + codes.shape_text(),
                    fmt::format("[{}, a multiple of {} up to {}]", linear.n, block_bytes,
                                mx::packed_bytes(format, linear.k)));
    }
    return codes.shape[1] * 8 / bits;
  }

  std::vector<int32_t> permutation(const std::string& name, int64_t k) {
    const TensorView* tensor = exact(name, DType::kI32, {k});
    std::vector<int32_t> values = tensor->values<int32_t>();
    std::vector<bool> seen(k);
    for (int64_t j = 0; j < k; ++j) {
      const int32_t value = values[j];
      if (value < 0 || value >= k || seen[value]) {
        throw_invalid(tensor->file->path().string(), name, fmt::format("{} at {}", value, j),
                      fmt::format("every number from 0 to {} once", k - 1));
      }
      seen[value] = true;
    }
    return values;
  }

  std::string config_file() const { return (store_.model() / "config.json").string(); }

  const ModelConfig& config_;
  const TensorStore& store_;
  std::set<std::string> used_;
};

LayerWeights find_layer(Finder& finder, const ModelConfig& config, int64_t index) {
  const int64_t hidden = config.hidden_size;
  const int64_t q = config.num_heads * config.head_dim;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  const auto linear = [&](LinearRole role) {
    const auto find = [&](int64_t n, int64_t k, bool bias) {
      return finder.linear(names::linear(index, role), n, k, bias);
    };
    switch (role) {
      case LinearRole::kQ:
        return find(q, hidden, config.qkv_bias);
      case LinearRole::kK:
      case LinearRole::kV:
        return find(kv, hidden, config.qkv_bias);
      case LinearRole::kO:
        return find(hidden, q, config.o_bias);
      case LinearRole::kGate:
      case LinearRole::kUp:
        return find(config.intermediate_size, hidden, config.mlp_bias);
      case LinearRole::kDown:
        break;
    }
    return find(hidden, config.intermediate_size, config.mlp_bias);
  };
  LayerWeights layer;
  for (LinearRole role : kLinearRoles) layer.linears[static_cast<size_t>(role)] = linear(role);
  const std::string prefix = names::layer(index);
  layer.attention_norm = finder.floats(prefix + ".input_layernorm.weight", {hidden});
  layer.mlp_norm = finder.floats(prefix + ".post_attention_layernorm.weight", {hidden});
  if (config.qk_norm) {
    layer.q_norm = finder.floats(prefix + ".self_attn.q_norm.weight", {config.head_dim});
    layer.k_norm = finder.floats(prefix + ".self_attn.k_norm.weight", {config.head_dim});
  }
  return layer;
}

// Linears that read one input must agree on its plan.
void expect_shared_plans(const std::string& model, const LayerWeights& layer) {
  for (LinearRole role : kLinearRoles) {
    for (LinearRole other : kLinearRoles) {
      const LinearWeights& a = layer[role];
      const LinearWeights& b = layer[other];
      if (role < other && input_of(role) == input_of(other) && a.quantized() && b.quantized() &&
          a.plan != b.plan) {
        throw_invalid(model, names::input_perm(b.module),
                      "another permutation or other segments than " + a.module,
                      "the same for all linears that share an input");
      }
    }
    if (role != LinearRole::kDown && !layer[role].folded_perm.empty()) {
      throw_invalid(model, names::folded_perm(layer[role].module), "a folded permutation",
                    "one on down_proj only");
    }
  }
  const LinearWeights& down = layer[LinearRole::kDown];
  if (!down.folded_perm.empty() && !down.plan.permutation.empty()) {
    throw_invalid(model, names::folded_perm(down.module), "both folded_perm and input_perm",
                  "one of them");
  }
}

}  // namespace

int64_t LinearWeights::stored_bytes() const {
  int64_t bytes = dense != nullptr ? static_cast<int64_t>(dense->bytes.size()) : 0;
  for (const Segment& segment : segments) {
    bytes += static_cast<int64_t>(segment.codes->bytes.size() + segment.scales->bytes.size());
  }
  return bytes;
}

void LinearWeights::release() const {
  if (dense != nullptr) dense->release();
  for (const Segment& segment : segments) {
    segment.codes->release();
    segment.scales->release();
  }
}

void LayerWeights::release() const {
  for (const LinearWeights& linear : linears) linear.release();
}

ModelWeights::ModelWeights(const std::filesystem::path& model)
    : config(load_config(model)), store(model) {
  Finder finder(config, store);
  embedding = finder.floats(names::kEmbedding, {config.vocab_size, config.hidden_size});
  final_norm = finder.floats(names::kFinalNorm, {config.hidden_size});
  if (config.tie_word_embeddings) {
    lm_head.module = names::kLmHead;
    lm_head.n = config.vocab_size;
    lm_head.k = config.hidden_size;
    lm_head.dense = embedding;
  } else {
    lm_head = finder.linear(names::kLmHead, config.vocab_size, config.hidden_size, false);
  }
  for (int64_t i = 0; i < config.num_layers; ++i) {
    layers.push_back(find_layer(finder, config, i));
    expect_shared_plans(store.model().string(), layers.back());
  }
  finder.expect_all_used();
}

std::vector<float> to_floats(const TensorView& tensor) {
  std::vector<float> out;
  switch (tensor.dtype) {
    case DType::kBF16:
      for (mx::BFloat16 value : tensor.values<mx::BFloat16>()) out.push_back(mx::to_float(value));
      break;
    case DType::kF16:
      for (uint16_t value : tensor.values<uint16_t>()) out.push_back(mx::half_to_float(value));
      break;
    default:
      out = tensor.values<float>();
  }
  return out;
}

ModelSize measure(const ModelWeights& weights) {
  ModelSize size;
  double bits = 0;
  double quantized = 0;
  const auto add = [&](const LinearWeights& linear) {
    const double elements = static_cast<double>(linear.n) * static_cast<double>(linear.k);
    size.parameters += linear.n * linear.k;
    if (linear.bias != nullptr) size.parameters += linear.n;
    if (!linear.quantized()) return;
    quantized += elements;
    bits += elements * linear.plan.average_bits();
  };
  for (const LayerWeights& layer : weights.layers) {
    for (const LinearWeights& linear : layer.linears) add(linear);
    for (const TensorView* norm :
         {layer.attention_norm, layer.mlp_norm, layer.q_norm, layer.k_norm}) {
      if (norm != nullptr) size.parameters += norm->shape[0];
    }
  }
  size.parameters += weights.config.vocab_size * weights.config.hidden_size;
  size.parameters += weights.config.hidden_size;
  const auto average = [&] { return quantized > 0 ? bits / quantized : 0; };
  size.layer_bits = average();
  if (!weights.config.tie_word_embeddings) add(weights.lm_head);
  for (const auto& file : weights.store.files()) {
    size.bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  }
  size.average_bits = average();
  size.bits_per_parameter =
      8.0 * static_cast<double>(size.bytes) / static_cast<double>(size.parameters);
  return size;
}

}  // namespace micromix
