// BF16 and F16 as stored bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace micromix::mx {

// The stored bits of a BF16 number.
struct BFloat16 {
  uint16_t bits;
};

inline float to_float(BFloat16 value) {
  return std::bit_cast<float>(uint32_t{value.bits} << 16);
}

inline bool is_finite(BFloat16 value) {
  return (value.bits & 0x7F80) != 0x7F80;
}

// Round to nearest even; NaN stays NaN (quiet).
inline BFloat16 to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16)};
}

// A double rounded once to BF16. Rounding through FP32 could round twice; here the FP32 step rounds
// to odd, which leaves the second rounding exact.
inline BFloat16 to_bfloat16(double value) {
  float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) != value && std::isfinite(nearest)) {
    const bool away = std::fabs(static_cast<double>(nearest)) > std::fabs(value);
    uint32_t bits = std::bit_cast<uint32_t>(nearest);
    if (away) --bits;
    nearest = std::bit_cast<float>(bits | 1u);
  }
  return to_bfloat16(nearest);
}

inline float round_to_bfloat16(float value) {
  return to_float(to_bfloat16(value));
}

// The value of IEEE binary16 bits.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = half >> 10 & 31;
  const uint32_t mantissa = half & 0x3FFu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

}  // namespace micromix::mx
