#include "micromix/quantize/options.h"

#include <fmt/format.h>

namespace micromix {

std::string method_name(const AllocationOptions& options) {
  switch (options.method) {
    case AllocationMethod::kPaper:
      return "paper";
    case AllocationMethod::kReleased:
      return "released";
    case AllocationMethod::kBudget:
      return "budget";
    case AllocationMethod::kUniform:
      break;
  }
  return fmt::format("uniform:{}", mx::name(options.uniform));
}

std::string_view name(WeightRounding rounding) {
  return rounding == WeightRounding::kGptq ? "gptq" : "rtn";
}

std::map<mx::Format, ActivationFormat> same_activations() {
  std::map<mx::Format, ActivationFormat> formats;
  for (mx::Format format : mx::kOperandFormats) formats[format] = format;
  return formats;
}

Json QuantizeOptions::to_json() const {
  Json activations = Json::object();
  for (const auto& [weight, activation] : activation_formats) {
    activations[std::string(mx::name(weight))] = activation ? mx::name(*activation) : "bf16";
  }
  Json json = {{"method", method_name(allocation)},
               {"weights", name(weights)},
               {"fp6", mx::name(allocation.fp6)},
               {"channel_group", allocation.channel_group},
               {"scale_rule", mx::name(scale_rule)},
               {"activations", activations},
               {"lm_head", lm_head ? mx::name(*lm_head) : "bf16"},
               {"keep", keep}};
  if (allocation.max_kl) {
    json["max_kl"] = *allocation.max_kl;
  } else if (allocation.method == AllocationMethod::kBudget) {
    json["bits"] = allocation.bits;
  }
  return json;
}

}  // namespace micromix
