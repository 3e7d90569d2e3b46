// A decoder layer that runs as it would after quantization, made in memory.
#pragma once

#include <deque>

#include "micromix/model/decoder_layer.h"
#include "micromix/quantize/planning.h"
#include "micromix/quantize/quantize_linear.h"

namespace micromix {

class SimulatedLayer {
 public:
  // WEIGHTS' linears that PLAN quantizes are rounded to nearest. WEIGHTS and CONFIG must outlive
  // it.
  SimulatedLayer(const LayerWeights& weights, const ModelConfig& config, const LayerPlan& plan,
                 const QuantizeOptions& options);

  const DecoderLayer& layer() const { return layer_; }

 private:
  std::deque<QuantizedLinear> quantized_;  // a deque: the layer's views stay valid
  DecoderLayer layer_;
};

// The activation side of PLAN.
kernels::InputPlan input_plan(const Plan& plan, const QuantizeOptions& options);

}  // namespace micromix
