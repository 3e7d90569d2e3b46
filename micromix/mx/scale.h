// E8M0 block scales and the three rules that choose them (OCP MX v1.0 section 6.3 for `floor`).
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "micromix/mx/format.h"

namespace micromix::mx {

enum class ScaleRule : uint8_t {
  kFloor,  // 2^(floor(log2 a) - emax): OCP v1.0; values above the largest saturate
  kRceil,  // the smallest power of two s with a / s <= largest: nothing saturates
  kEven,   // floor after rounding a to the format's mantissa width, ties to even
};

inline constexpr std::array kScaleRules = {ScaleRule::kFloor, ScaleRule::kRceil, ScaleRule::kEven};

constexpr std::string_view name(ScaleRule rule) {
  switch (rule) {
    case ScaleRule::kFloor:
      return "floor";
    case ScaleRule::kRceil:
      return "rceil";
    case ScaleRule::kEven:
      return "even";
  }
  return {};
}

constexpr std::optional<ScaleRule> parse_scale_rule(std::string_view text) {
  for (ScaleRule rule : kScaleRules) {
    if (name(rule) == text) return rule;
  }
  return std::nullopt;
}

// An E8M0 byte b stands for 2^(b - 127); 255 is NaN.
inline constexpr int kScaleBias = 127;
inline constexpr uint8_t kScaleNan = 0xFF;
inline constexpr uint8_t kScaleOne = 127;

// The value of a scale byte, exact in FP32 (2^-127 is an FP32 subnormal).
inline float decode_scale(uint8_t scale) {
  if (scale == kScaleNan) return std::numeric_limits<float>::quiet_NaN();
  return scale == 0 ? 0x1p-127f : std::bit_cast<float>(uint32_t{scale} << 23);
}

// The scale byte of a block whose largest magnitude is AMAX (>= 0, finite): computed on the bits,
// so the same on every machine. An all-zero block has scale 1; exponents are clamped to [-127,
// 127].
constexpr uint8_t encode_scale(ScaleRule rule, Format format, float amax) {
  uint32_t bits = std::bit_cast<uint32_t>(amax);
  assert(bits < 0x7F800000u);
  if (bits == 0) return kScaleOne;
  const FormatTraits f = traits(format);
  // amax = 2^exponent * 1.mantissa, the mantissa in 23 bits; subnormals are normalised first.
  int exponent = static_cast<int>(bits >> 23) - 127;
  uint32_t mantissa = bits & 0x7FFFFFu;
  if (exponent == -127) {
    const int shift = std::countl_zero(mantissa) - 8;
    exponent = -126 - shift;
    mantissa = (mantissa << shift) & 0x7FFFFFu;
  }
  const int dropped = 23 - f.mantissa_bits;
  switch (rule) {
    case ScaleRule::kFloor:
      break;
    case ScaleRule::kRceil:
      if (mantissa > static_cast<uint32_t>(f.largest_mantissa) << dropped) ++exponent;
      break;
    case ScaleRule::kEven: {
      // Rounding reaches the next power of two only from an all-ones mantissa, which is odd, so a
      // tie there goes up too.
      const uint32_t all_ones_and_half = (0x7FFFFFu >> dropped << dropped) | 1u << (dropped - 1);
      if (mantissa >= all_ones_and_half) ++exponent;
      break;
    }
  }
  return static_cast<uint8_t>(std::clamp(exponent - f.emax, -127, 127) + kScaleBias);
}

}  // namespace micromix::mx
