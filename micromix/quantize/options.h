// Everything that shapes a quantized model.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "micromix/base/json.h"
#include "micromix/checkpoint/quantization_config.h"
#include "micromix/quantize/allocation.h"

namespace micromix {

// How weights are rounded inside their segments.
enum class WeightRounding : uint8_t {
  kNearest,  // each to the nearest code
  kGptq,     // with error feedback (gptq.h)
};

struct QuantizeOptions {
  AllocationOptions allocation;
  WeightRounding weights = WeightRounding::kNearest;
  mx::ScaleRule scale_rule = mx::ScaleRule::kRceil;
  // What each weight format multiplies.
  std::map<mx::Format, ActivationFormat> activation_formats;
  // The format of every channel of the lm_head, in their original order; none: BF16. A tied one
  // becomes a tensor of its own. Always rounded to nearest and outside the allocation, as
  // calibration goes no further than the decoder layers: neither statistics nor moments of the
  // lm_head's input are collected.
  std::optional<mx::Format> lm_head;
  // ECMAScript regular expressions searched for in module names ("model.layers.0.mlp.down_proj");
  // linears that match stay BF16. Embeddings always do.
  std::vector<std::string> keep;

  // Every option that shapes the result, as recorded in the checkpoint.
  Json to_json() const;
};

// "paper", "released", "budget", "uniform:e2m1".
std::string method_name(const AllocationOptions& options);

// "rtn" or "gptq".
std::string_view name(WeightRounding rounding);

// Activations in the format of the weight they multiply.
std::map<mx::Format, ActivationFormat> same_activations();

}  // namespace micromix
