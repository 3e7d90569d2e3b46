// Blocks of BF16 values to scales and elements, bit-equal to mx/block.h, two values at a time: a
// word has two *sides*, its halves, and BF16 arithmetic works on both. They may belong to two
// blocks: what belongs to a block as a whole stands on the side of its values.
//
// Every step is exact or rounds once (CUDA's packed BF16 operations keep subnormals):
//   s = x / scale        A power of two times a BF16 number: exact down to 2^-126, and what is
//                        smaller rounds to element zero anyway (the smallest element is 2^-9).
// and, with the sign of x throughout, of magnitudes,
//   s = min(s, largest)  Saturates. The largest is an element, so rounding leaves s at most there.
//   p = max(binade of s, smallest normal element)
//   t = p * 2^(7-M) + s  M: the format's mantissa bits. The unit in the last place of the element
//                        is u = p * 2^-M, and s < 2^(M+1) u <= 2^4 u. BF16 has 8 significant bits,
//                        so in [2^7 u, 2^8 u), where t lies, its numbers are the multiples of u:
//                        one fused addition rounds s to such a multiple, ties to even ones, as 2^7
//                        is even.
//   e = t - p * 2^(7-M)  The element: a multiple of u up to 2^4 u, exact.
// Times the power of two that makes the smallest normal element BF16's, an element's fields are its
// code: subnormal elements are subnormal BF16 numbers, others have its exponent, and below the
// upper M mantissa bits are zeros. That is exact too.
//
// Element zero has lost its sign.
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
  uint32_t code_fields;      // BF16: 2^-126 over the smallest normal element
  uint32_t code_place;       // 2^(mantissa bits + 1), lifts those fields to a side's upper byte
  int32_t bits;
};

inline constexpr int kBF16Mantissa = 7;
inline constexpr int kBF16Bias = 127;
inline constexpr uint32_t kSigns = 0x80008000u;
inline constexpr uint32_t kExponents = 0x7F807F80u;
inline constexpr uint32_t kNan = 0x7FC0u;
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
  rounding.code_fields = twice(bf16_bits(-126 - (1 - f.bias)));
  rounding.code_place = 2u << f.mantissa_bits;
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
// Of magnitudes: the result has the sign of A, B being positive. One instruction since sm_86.
__device__ inline uint32_t smaller_magnitude(uint32_t a, uint32_t b) {
#if __CUDA_ARCH__ >= 860
  uint32_t d;
  asm("min.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  return minimum(a & ~kSigns, b) | (a & kSigns);
#endif
}
__device__ inline uint32_t larger_magnitude(uint32_t a, uint32_t b) {
#if __CUDA_ARCH__ >= 860
  uint32_t d;
  asm("max.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  return maximum(a & ~kSigns, b) | (a & kSigns);
#endif
}
// NaN where A or B is; with any sign.
__device__ inline uint32_t larger_magnitude_or_nan(uint32_t a, uint32_t b) {
  uint32_t d;
#if __CUDA_ARCH__ >= 860
  asm("max.NaN.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
#else
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a & ~kSigns), "r"(b & ~kSigns));
#endif
  return d;
}

inline constexpr int kSides = 2;

// Of one side of a word, below; and of one side or the other of two words.
__device__ inline uint32_t side_bits(int side, uint32_t word) {
  return word >> 16 * side & 0xFFFFu;
}
__device__ inline uint32_t low_sides(uint32_t a, uint32_t b) {
  return __byte_perm(a, b, 0x5410);
}
__device__ inline uint32_t high_sides(uint32_t a, uint32_t b) {
  return __byte_perm(a, b, 0x7632);
}

// The largest magnitude of each side, with any sign; NaN where one is. In four chains.
template <int kWords>
__device__ uint32_t largest_magnitude(const uint32_t (&x)[kWords]) {
  uint32_t largest[4] = {x[0], x[1], x[2], x[3]};
#pragma unroll
  for (int i = 4; i < kWords; ++i) largest[i % 4] = larger_magnitude_or_nan(largest[i % 4], x[i]);
  return larger_magnitude_or_nan(larger_magnitude_or_nan(largest[0], largest[1]),
                                 larger_magnitude_or_nan(largest[2], largest[3]));
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

// The scale byte of a side, of which the bits are given; kScaleNan where AMAX is not finite.
__device__ inline uint32_t scale_byte(uint32_t amax, uint32_t scale_exponent) {
  const uint32_t byte = scale_exponent >> kBF16Mantissa;
  return amax >= kBF16Infinity ? mx::kScaleNan : amax == 0 ? mx::kScaleOne : byte;
}

// Of exact rows (activations.h).
__device__ inline int exact_shift(uint32_t byte) {
  if (byte == mx::kScaleNan) return 0;
  const int exponent = static_cast<int>(byte) - mx::kScaleBias;
  return exponent < kLowestExactExponent ? -1 : exponent > kHighestExactExponent ? 1 : 0;
}
// What makes an element an exact row's value, as BF16: the scale times 2^(-128 * exact_shift), from
// 2^-117 to 2^112, or NaN.
__device__ inline uint32_t exact_multiplier(uint32_t byte) {
  if (byte == mx::kScaleNan) return kNan;
  return static_cast<uint32_t>(static_cast<int>(byte) - 128 * exact_shift(byte)) << kBF16Mantissa;
}

// The elements, as above.
__device__ inline uint32_t elements(uint32_t x, uint32_t inverse_scale,
                                    const BlockRounding& rounding) {
  const uint32_t scaled = smaller_magnitude(multiply(x, inverse_scale), rounding.largest);
  const uint32_t binade =
      larger_magnitude(scaled & (kExponents | kSigns), rounding.smallest_normal);
  const uint32_t sum = fused_multiply_add(binade, rounding.units, scaled);
  return fused_multiply_add(binade, rounding.units ^ kSigns, sum);
}

// The elements times MULTIPLIER. Exact: an exact row's multiplier keeps every element a normal
// number.
__device__ inline uint32_t exact_values(uint32_t x, uint32_t inverse_scale, uint32_t multiplier,
                                        const BlockRounding& rounding) {
  return multiply(elements(x, inverse_scale, rounding) | (x & kSigns), multiplier);
}

// The elements' codes without signs, in each side's upper byte; the lower is of no use.
__device__ inline uint32_t code_magnitudes(uint32_t x, uint32_t inverse_scale,
                                           const BlockRounding& rounding) {
  return multiply(elements(x, inverse_scale, rounding), rounding.code_fields) * rounding.code_place;
}

#endif  // __CUDACC__

}  // namespace micromix::kernels::cuda
