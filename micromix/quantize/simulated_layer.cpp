#include "micromix/quantize/simulated_layer.h"

namespace micromix {

SimulatedLayer::SimulatedLayer(const LayerWeights& weights, const ModelConfig& config,
                               const LayerPlan& plan, const QuantizeOptions& options)
    : layer_(weights, config, kernels::reference_backend()) {
  for (LinearRole role : kLinearRoles) {
    if (!plan.is_quantized(role)) continue;
    const LinearWeights& linear = weights[role];
    quantized_.push_back(quantize_linear(linear, plan.of(role), {}, options.scale_rule));
    kernels::MixedWeight view = quantized_.back().view();
    if (linear.bias != nullptr) view.bias = to_floats(*linear.bias);
    kernels::InputPlan of_input = input_plan(plan.of(role), options);
    auto prepared = kernels::reference_backend().prepare(view, of_input);
    layer_.replace(role, std::move(of_input), std::move(prepared));
  }
}

kernels::InputPlan input_plan(const Plan& plan, const QuantizeOptions& options) {
  kernels::InputPlan result{plan.size(), plan.permutation, {}, options.scale_rule};
  for (size_t f = 0; f < plan.channels.size(); ++f) {
    if (plan.channels[f] == 0) continue;
    const mx::Format format = mx::kOperandFormats[f];
    result.segments.push_back({format, options.activation_formats.at(format), plan.channels[f]});
  }
  return result;
}

}  // namespace micromix
