// Elements: one code of a narrow floating-point format and its value. Scalar and exact: the oracle
// of every other conversion in the project.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>

#include "micromix/mx/format.h"

namespace micromix::mx {

// The value of a code; codes use the low bits of a byte. NaN and Inf where the format has them.
inline float decode(Format format, uint8_t code) {
  const FormatTraits f = traits(format);
  const bool negative = code >> (f.bits - 1) & 1;
  const int exponent = code >> f.mantissa_bits & ((1 << f.exponent_bits) - 1);
  const int mantissa = code & ((1 << f.mantissa_bits) - 1);
  float magnitude;
  if (format == Format::kE4M3 && (code & 0x7F) == 0x7F) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (format == Format::kE5M2 && exponent == 31) {
    magnitude = mantissa == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), 1 - f.bias - f.mantissa_bits);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + (1 << f.mantissa_bits)),
                           exponent - f.bias - f.mantissa_bits);
  }
  return negative ? -magnitude : magnitude;
}

// The values of all codes of a format, for decoding many.
inline const std::array<float, 256>& decode_table(Format format) {
  static const auto tables = [] {
    std::array<std::array<float, 256>, kAllFormats.size()> all{};
    for (Format each : kAllFormats) {
      for (int code = 0; code < 1 << traits(each).bits; ++code) {
        all[static_cast<size_t>(each)][code] = decode(each, static_cast<uint8_t>(code));
      }
    }
    return all;
  }();
  return tables[static_cast<size_t>(format)];
}

// 2^EXPONENT, for EXPONENT in [-1022, 1023].
inline double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(1023 + exponent) << 52);
}

// The code nearest to VALUE * 2^-SCALE_EXPONENT, ties to even, saturating (infinities too). NaN
// gives the format's NaN where it has one; elsewhere NaN must not come here (a block holding one
// has a NaN scale instead).
inline uint8_t encode(Format format, float value, int scale_exponent = 0) {
  const FormatTraits f = traits(format);
  const uint8_t sign = std::signbit(value) ? 1 << (f.bits - 1) : 0;
  if (std::isnan(value)) {
    assert(f.has_nan);
    return sign | 0x7F;
  }
  // Doubles hold every FP32 value times every E8M0 scale exactly, as a normal number.
  const double magnitude = std::fabs(static_cast<double>(value)) * power_of_two(-scale_exponent);
  if (magnitude >= f.largest) {
    return sign | static_cast<uint8_t>((f.emax + f.bias) << f.mantissa_bits | f.largest_mantissa);
  }
  // Count units in the last place, whose size is constant below the smallest normal.
  const int binade = static_cast<int>(std::bit_cast<uint64_t>(magnitude) >> 52) - 1023;
  const int exponent = std::max(1 - f.bias, binade);
  const double ulps = magnitude * power_of_two(f.mantissa_bits - exponent);
  int count = static_cast<int>(ulps);
  const double rest = ulps - count;
  if (rest > 0.5 || (rest == 0.5 && (count & 1) != 0)) ++count;
  // Codes of one sign are consecutive integers, so a carry out of the mantissa is the next
  // exponent.
  const int base = (exponent - 1 + f.bias) << f.mantissa_bits;
  return sign | static_cast<uint8_t>(base + count);
}

}  // namespace micromix::mx
