// Blocks of BF16 values to scales and elements, bit-equal to mx/block.h, two channels at a time: a
// word holds two neighbours, the first in its low half, and BF16 arithmetic works on both. What
// belongs to a block as a whole stands in both halves.
//
// Every step is exact or rounds once (CUDA's packed BF16 operations keep subnormals):
//   s = |x| / scale      A power of two times a BF16 number: exact down to 2^-126, and what is
//                        smaller rounds to element zero anyway (the smallest element is 2^-9).
//   s = min(s, largest)  Saturates. The largest is an element, so rounding leaves s at most there.
//   p = max(binade of s, smallest normal element)
//   t = p * 2^(7-M) + s  M: the format's mantissa bits. The unit in the last place of the element
//                        is u = p * 2^-M, and s < 2^(M+1) u <= 2^4 u. BF16 has 8 significant bits,
//                        so in [2^7 u, 2^8 u), where t lies, its numbers are the multiples of u:
//                        one fused addition rounds s to such a multiple, ties to even ones, as 2^7
//                        is even. t's low 7 bits count the units.
//   t - p * 2^(7-M)      The element: a multiple of u up to 2^4 u, exact.
// Units of successive binades are successive codes, so the code is that count, plus 2^M for every
// binade of p above the smallest normal one.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"

namespace micromix::kernels::cuda {

// Of one format and scale rule. Words hold a constant twice.
struct BlockRounding {
  uint32_t largest;          // BF16
  uint32_t smallest_normal;  // BF16
  uint32_t units;            // BF16: 2^(7 - mantissa bits)
  uint32_t emax;             // in BF16's exponent field
  uint32_t carry;            // see scale_exponent()
  int32_t code_shift;        // 7 - mantissa bits
  int32_t bits;
};

inline constexpr int kBF16Mantissa = 7;
inline constexpr int kBF16Bias = 127;
inline constexpr uint32_t kSigns = 0x80008000u;
inline constexpr uint32_t kMagnitudes = 0x7FFF7FFFu;
inline constexpr uint32_t kExponents = 0x7F807F80u;
inline constexpr uint32_t kMantissas = 0x007F007Fu;
inline constexpr uint32_t kNans = 0x7FC07FC0u;
inline constexpr uint32_t kInverseOfByte0 = 0x7F007F00u;  // 2^127
inline constexpr uint32_t kBF16Infinity = 0x7F80u;

constexpr uint32_t twice(uint32_t half) {
  return half << 16 | half;
}

// BF16 bits of 2^EXPONENT * (1 + MANTISSA / 128).
constexpr uint32_t bf16_bits(int exponent, uint32_t mantissa = 0) {
  return static_cast<uint32_t>(exponent + kBF16Bias) << kBF16Mantissa | mantissa;
}

constexpr BlockRounding block_rounding(mx::Format format, mx::ScaleRule rule) {
  const mx::FormatTraits f = mx::traits(format);
  const int dropped = kBF16Mantissa - f.mantissa_bits;
  BlockRounding rounding{};
  rounding.largest = twice(bf16_bits(f.emax, static_cast<uint32_t>(f.largest_mantissa) << dropped));
  rounding.smallest_normal = twice(bf16_bits(1 - f.bias));
  rounding.units = twice(bf16_bits(dropped));
  rounding.emax = twice(static_cast<uint32_t>(f.emax) << kBF16Mantissa);
  rounding.code_shift = dropped;
  rounding.bits = f.bits;
  // The scale's exponent grows by one from this mantissa on.
  int from = 1 << kBF16Mantissa;  // floor: never
  if (rule == mx::ScaleRule::kRceil) from = (f.largest_mantissa << dropped) + 1;
  if (rule == mx::ScaleRule::kEven) from = 0x7F >> dropped << dropped | 1 << (dropped - 1);
  rounding.carry = twice(static_cast<uint32_t>((1 << kBF16Mantissa) - from));
  return rounding;
}

#ifdef __CUDACC__

__device__ inline uint32_t fused_multiply_add(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
// Adding -0 changes nothing, zeros' signs neither; sm_80 has no other product.
__device__ inline uint32_t multiply(uint32_t a, uint32_t b) {
  return fused_multiply_add(a, b, kSigns);
}
__device__ inline uint32_t minimum(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("min.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ inline uint32_t maximum(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ inline uint32_t maximum_or_nan(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

// The largest magnitude of 16 values, in both halves; NaN where one is.
__device__ inline uint32_t largest_magnitude(const uint32_t (&x)[8]) {
  uint32_t largest = x[0] & kMagnitudes;
#pragma unroll
  for (int i = 1; i < 8; ++i) largest = maximum_or_nan(largest, x[i] & kMagnitudes);
  return maximum_or_nan(largest, __byte_perm(largest, largest, 0x1032));
}

// mx::encode_scale() of a block whose largest magnitude is AMAX, in BF16's exponent field (so this
// is a BF16 number, the scale, but for byte 0), where AMAX is neither zero nor not finite.
// Adding CARRY to the bits carries into the exponent where the rule rounds it up; halves do not
// mix, as not even NaN's bits reach 2^16 by it. A subnormal AMAX needs no normalising: its exponent
// is at most -127, emax at least 2, so rounded up or not it ends below -127, the lowest there is,
// and so does what is computed here. The upper end needs no clamp: 254 + 1 - emax < 254.
__device__ inline uint32_t scale_exponent(uint32_t amax, const BlockRounding& rounding) {
  return maximum((amax + rounding.carry) & kExponents, rounding.emax) - rounding.emax;
}

// One over the scale: 2^(127 - byte), a normal number as bytes are 0...253. Some finite number
// where AMAX is zero or not finite.
__device__ inline uint32_t inverse_scale(uint32_t scale_exponent) {
  return kInverseOfByte0 - scale_exponent;
}

// The scale byte; kScaleNan where AMAX is not finite.
__device__ inline uint32_t scale_byte(uint32_t amax, uint32_t scale_exponent) {
  const uint32_t largest = amax & 0xFFFFu;
  const uint32_t byte = scale_exponent >> kBF16Mantissa & 0xFFu;
  return largest >= kBF16Infinity ? mx::kScaleNan : largest == 0 ? mx::kScaleOne : byte;
}

// Of exact rows (activations.h).
__device__ inline int exact_shift(uint32_t byte) {
  if (byte == mx::kScaleNan) return 0;
  const int exponent = static_cast<int>(byte) - mx::kScaleBias;
  return exponent < kLowestExactExponent ? -1 : exponent > kHighestExactExponent ? 1 : 0;
}
// What makes an element an exact row's value: the scale times 2^(-128 * exact_shift), from 2^-117
// to 2^112, or NaN.
__device__ inline uint32_t exact_multiplier(uint32_t byte) {
  if (byte == mx::kScaleNan) return kNans;
  return static_cast<uint32_t>(static_cast<int>(byte) - 128 * exact_shift(byte)) * 0x00010001u
         << kBF16Mantissa;
}

// A rounded magnitude, as above.
struct RoundedMagnitudes {
  uint32_t binade;  // p
  uint32_t sum;     // t
};
__device__ inline RoundedMagnitudes round_magnitudes(uint32_t x, uint32_t inverse_scale,
                                                     const BlockRounding& rounding) {
  const uint32_t scaled = minimum(multiply(x & kMagnitudes, inverse_scale), rounding.largest);
  RoundedMagnitudes rounded;
  rounded.binade = maximum(scaled & kExponents, rounding.smallest_normal);
  rounded.sum = fused_multiply_add(rounded.binade, rounding.units, scaled);
  return rounded;
}

// The elements times MULTIPLIER. Exact: an exact row's multiplier keeps every element a normal
// number.
__device__ inline uint32_t exact_values(uint32_t x, uint32_t inverse_scale, uint32_t multiplier,
                                        const BlockRounding& rounding) {
  const RoundedMagnitudes rounded = round_magnitudes(x, inverse_scale, rounding);
  const uint32_t magnitudes =
      fused_multiply_add(rounded.binade, rounding.units ^ kSigns, rounded.sum);
  return multiply(magnitudes | (x & kSigns), multiplier);
}

// The elements' codes, one in each half.
__device__ inline uint32_t element_codes(uint32_t x, uint32_t inverse_scale,
                                         const BlockRounding& rounding) {
  const RoundedMagnitudes rounded = round_magnitudes(x, inverse_scale, rounding);
  // Halves do not mix: binades are whole exponents, and so are their differences, none negative.
  const uint32_t binades = (rounded.binade - rounding.smallest_normal) >> rounding.code_shift;
  const uint32_t signs = (x & kSigns) >> (16 - rounding.bits);
  return (rounded.sum & kMantissas) + binades + signs;
}

#endif  // __CUDACC__

}  // namespace micromix::kernels::cuda
