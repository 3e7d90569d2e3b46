// Random mixed linears and inputs for kernel tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <vector>

#include "micromix/kernels/linear.h"
#include "micromix/mx/packing.h"

namespace micromix::testing {

using Random = std::mt19937;

// A mixed weight that owns its bytes.
struct RandomWeight {
  kernels::MixedWeight weight;
  std::vector<std::vector<uint8_t>> codes, scales;  // per segment
};

struct SegmentShape {
  mx::Format weight;
  std::optional<mx::Format> activation;
  int64_t channels;
};

// Codes are any but NaN; scale bytes from SCALE_LOW to SCALE_HIGH.
inline RandomWeight random_weight(Random& random, int64_t n,
                                  const std::vector<SegmentShape>& shapes, int scale_low,
                                  int scale_high, bool bias) {
  RandomWeight result;
  result.weight.n = n;
  for (const SegmentShape& shape : shapes) {
    const int64_t count = n * shape.channels;
    std::vector<uint8_t> codes(count);
    for (uint8_t& code : codes) {
      do {
        code = random() & ((1u << mx::traits(shape.weight).bits) - 1);
      } while (shape.weight == mx::Format::kE4M3 && (code & 0x7F) == 0x7F);
    }
    std::vector<uint8_t> packed(mx::packed_bytes(shape.weight, count));
    mx::pack(shape.weight, codes, packed);
    std::vector<uint8_t> scales(count / mx::kBlockSize);
    std::uniform_int_distribution<int> scale(scale_low, scale_high);
    for (uint8_t& byte : scales) byte = static_cast<uint8_t>(scale(random));
    result.codes.push_back(std::move(packed));
    result.scales.push_back(std::move(scales));
    result.weight.k += shape.channels;
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    result.weight.segments.push_back(
        {shapes[i].weight, shapes[i].channels, result.codes[i], result.scales[i]});
  }
  std::normal_distribution<float> normal;
  for (int64_t j = 0; j < n && bias; ++j) result.weight.bias.push_back(normal(random));
  return result;
}

inline kernels::InputPlan random_plan(Random& random, const std::vector<SegmentShape>& shapes,
                                      mx::ScaleRule rule) {
  kernels::InputPlan plan;
  plan.scale_rule = rule;
  for (const SegmentShape& shape : shapes) {
    plan.segments.push_back({shape.weight, shape.activation, shape.channels});
    plan.k += shape.channels;
  }
  plan.permutation.resize(plan.k);
  for (int64_t j = 0; j < plan.k; ++j) plan.permutation[j] = static_cast<int32_t>(j);
  std::shuffle(plan.permutation.begin(), plan.permutation.end(), random);
  return plan;
}

// All that a segment's activations may be.
inline std::vector<std::optional<mx::Format>> activation_formats() {
  return {mx::Format::kE2M1, mx::Format::kE2M3, mx::Format::kE3M2, mx::Format::kE4M3, std::nullopt};
}

// Rows of COUNT values in all, their magnitudes spread over orders.
inline std::vector<float> random_rows(Random& random, int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random) * std::exp(2 * normal(random));
  return x;
}

}  // namespace micromix::testing
