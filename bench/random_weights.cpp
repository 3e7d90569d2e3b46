#include "bench/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "micromix/mx/format.h"

namespace micromix::bench {
namespace {

using mx::Format;
using Random = std::mt19937_64;

std::vector<uint8_t> random_bytes(int64_t count, Random& random) {
  std::vector<uint8_t> bytes(count);
  for (int64_t i = 0; i < count; i += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, std::min<int64_t>(sizeof(word), count - i));
  }
  return bytes;
}

// Packed: every byte string is codes of the formats without NaN.
std::vector<uint8_t> random_codes(Format format, int64_t count, Random& random) {
  std::vector<uint8_t> codes = random_bytes(mx::packed_bytes(format, count), random);
  if (!mx::traits(format).has_nan) return codes;
  for (uint8_t& code : codes) {
    if ((code & 0x7F) == 0x7F) code ^= 0x01;
  }
  return codes;
}

std::vector<uint8_t> random_scales(int64_t count, Random& random) {
  constexpr uint8_t kLow = 127 - 8;
  constexpr uint8_t kHigh = 127 - 4;
  std::vector<uint8_t> scales = random_bytes(count, random);
  for (uint8_t& scale : scales) scale = static_cast<uint8_t>(kLow + scale % (kHigh - kLow + 1));
  return scales;
}

}  // namespace

const std::vector<NamedPlan>& named_plans() {
  static const std::vector<NamedPlan> plans = {
      {"e2m1", {{Format::kE2M1, 1.0}}},
      {"e2m3", {{Format::kE2M3, 1.0}}},
      {"e3m2", {{Format::kE3M2, 1.0}}},
      {"e4m3", {{Format::kE4M3, 1.0}}},
      {"paper", {{Format::kE2M1, 0.5}, {Format::kE3M2, 0.1}, {Format::kE4M3, 0.4}}},
      {"five", {{Format::kE2M1, 0.625}, {Format::kE2M3, 0.375}}}};
  return plans;
}

std::vector<SegmentLength> segment_lengths(const NamedPlan& plan, int64_t k) {
  const int64_t blocks = k / mx::kBlockSize;
  std::vector<SegmentLength> segments;
  double until = 0;
  int64_t begin = 0;
  for (const Share& share : plan.shares) {
    until += share.of_k;
    const int64_t end = std::llround(until * static_cast<double>(blocks));
    if (end > begin) segments.push_back({share.format, (end - begin) * mx::kBlockSize});
    begin = end;
  }
  return segments;
}

int64_t RandomWeight::packed_bytes() const {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0}, [](int64_t sum, const auto& part) {
    return sum + static_cast<int64_t>(part.size());
  });
}

RandomWeight random_weight(int64_t n, const std::vector<SegmentLength>& segments, uint64_t seed) {
  Random random(seed);
  RandomWeight result;
  result.weight.n = n;
  for (const SegmentLength& segment : segments) {
    const int64_t count = n * segment.channels;
    result.bytes.push_back(random_codes(segment.format, count, random));
    result.bytes.push_back(random_scales(count / mx::kBlockSize, random));
    result.weight.k += segment.channels;
  }
  for (size_t i = 0; i < segments.size(); ++i) {
    result.weight.segments.push_back(
        {segments[i].format, segments[i].channels, result.bytes[2 * i], result.bytes[2 * i + 1]});
  }
  return result;
}

kernels::InputPlan random_plan(const std::vector<SegmentLength>& segments, uint64_t seed) {
  kernels::InputPlan plan;
  for (const SegmentLength& segment : segments) {
    plan.segments.push_back({segment.format, segment.format, segment.channels});
    plan.k += segment.channels;
  }
  plan.permutation.resize(plan.k);
  std::iota(plan.permutation.begin(), plan.permutation.end(), 0);
  std::shuffle(plan.permutation.begin(), plan.permutation.end(), Random(seed));
  return plan;
}

std::vector<float> random_activations(int64_t count, uint64_t seed) {
  Random random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

}  // namespace micromix::bench
