// Mixed weights and inputs of a named plan, with random values, made fast enough for large shapes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "micromix/kernels/linear.h"

namespace micromix::bench {

struct Share {
  mx::Format format;
  double of_k;
};
struct NamedPlan {
  std::string_view name;
  std::vector<Share> shares;
};

// The plans measured: each format alone, the paper's mix, and five bits a weight of E2M1 and E2M3.
const std::vector<NamedPlan>& named_plans();

// The channels of each format; K is a multiple of 32, and so are they.
struct SegmentLength {
  mx::Format format;
  int64_t channels;
};
std::vector<SegmentLength> segment_lengths(const NamedPlan& plan, int64_t k);

// A weight that owns its bytes: uniform codes but NaN, scales from 2^-8 to 2^-4. One seed makes one
// weight.
struct RandomWeight {
  RandomWeight() = default;
  RandomWeight(RandomWeight&&) = default;  // a copy's views would be of another's bytes

  std::vector<std::vector<uint8_t>> bytes;  // codes, scales, codes, scales, …
  kernels::MixedWeight weight;              // views of them

  int64_t packed_bytes() const;
};
RandomWeight random_weight(int64_t n, const std::vector<SegmentLength>& segments, uint64_t seed);

// Activations in the weight's formats, gathered by a random permutation.
kernels::InputPlan random_plan(const std::vector<SegmentLength>& segments, uint64_t seed);

// [count], standard normal.
std::vector<float> random_activations(int64_t count, uint64_t seed);

}  // namespace micromix::bench
