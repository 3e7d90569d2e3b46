// Outputs that the tensor cores cannot give, one at a time: the FP64 oracle (DESIGN section 3) over
// packed weights and exact rows. Slow; for rows and columns with extreme scales only.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/packed_layout.h"

namespace micromix::kernels::cuda {

// The code of a record's element, as in a checkpoint.
__device__ inline uint32_t record_code(const uint8_t* record, mx::Format format, int row,
                                       int channel) {
  const auto* const words = reinterpret_cast<const uint32_t*>(record);
  const FragmentPlace at = fragment_place(row, channel);
  if (format == mx::Format::kE4M3) return words[byte_word(at)] >> byte_shift(at) & 0xFF;
  const auto bit = [](uint32_t word, int place) { return word >> place & 1; };
  const uint32_t upper = words[upper_word(at)];
  const uint32_t mantissa = bit(upper, upper_bit(at, kMantissa));
  const uint32_t exponent =
      bit(upper, upper_bit(at, kExponent1)) << 1 | bit(upper, upper_bit(at, kExponent0));
  const uint32_t sign = bit(upper, upper_bit(at, kSign));
  if (format == mx::Format::kE2M1) return sign << 3 | exponent << 1 | mantissa;
  const uint32_t lower = words[lower_word(at)];
  const uint32_t zeroth = bit(lower, lower_bit(format, at, 0));
  const uint32_t other = bit(lower, lower_bit(format, at, 1));
  return format == mx::Format::kE2M3
             ? sign << 5 | exponent << 3 | mantissa << 2 | other << 1 | zeroth
             : sign << 5 | other << 4 | exponent << 2 | mantissa << 1 | zeroth;
}

__device__ inline double element_value(mx::Format format, uint32_t code) {
  const int bits = bits_of(format);
  const int mantissa_bits = format == mx::Format::kE2M1 ? 1 : format == mx::Format::kE3M2 ? 2 : 3;
  const int exponent = code >> mantissa_bits & ((1 << (bits - 1 - mantissa_bits)) - 1);
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const int significand = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  const int power = max(exponent, 1) - exponent_bias(format) - mantissa_bits;
  const double magnitude = ldexp(static_cast<double>(significand), power);
  return code >> (bits - 1) != 0 ? -magnitude : magnitude;
}

// The exponent of a block's scale, from the record or, of oracle rows, as it was stored.
__device__ inline int scale_exponent(const WeightView& weight, const uint8_t* record,
                                     mx::Format format, int64_t row, int64_t block) {
  const float factor = weight.factors[row];
  if (factor != 0) {
    const int reference = (__float_as_int(factor) >> 23) - 127;
    const int stored =
        record[code_bytes(format) + scale_byte(static_cast<int>(row % kPanel),
                                               static_cast<int>(block % kBlocksPerChunk))];
    return stored - stored_scale(format, 0) + reference;
  }
  int at = 0;
  while (weight.oracle_rows[at] != row) ++at;
  return weight.oracle_scales[int64_t{at} * weight.chunks * kBlocksPerChunk + block] -
         mx::kScaleBias;
}

__device__ inline __nv_bfloat16 round_once(double value) {
  // To odd first, so that the second rounding is the only one that counts.
  float odd = __double2float_rz(value);
  if (static_cast<double>(odd) != value) odd = __int_as_float(__float_as_int(odd) | 1);
  return __float2bfloat16_rn(odd);
}

// Output [row of X, row of the weight]. A zero times a NaN of X is NaN, as on the tensor cores.
__device__ __noinline__ inline __nv_bfloat16 oracle_output(const WeightView& weight,
                                                           const ExactRows& x, int64_t x_row,
                                                           int64_t row) {
  if (isnan(weight.factors[row])) return __float2bfloat16_rn(weight.factors[row]);
  double sum = weight.bias == nullptr ? 0.0 : static_cast<double>(weight.bias[row]);
  for (int s = 0; s < weight.segment_count; ++s) {
    const WeightView::Segment& segment = weight.segments[s];
    for (int channel = 0; channel < segment.channels; ++channel) {
      const uint8_t* const record =
          record_of(weight, row / kPanel, segment, segment.first_chunk + channel / kChunk);
      const uint32_t code =
          record_code(record, segment.format, static_cast<int>(row % kPanel), channel % kChunk);
      const double element = element_value(segment.format, code);
      const int64_t block =
          int64_t{segment.first_chunk} * kBlocksPerChunk + channel / mx::kBlockSize;
      const double weight_value =
          ldexp(element, scale_exponent(weight, record, segment.format, row, block));
      const int64_t x_block = block * x.m + x_row;
      const double x_value = ldexp(
          static_cast<double>(__bfloat162float(
              x.values[x_block * mx::kBlockSize + exact_place(x_row, channel % mx::kBlockSize)])),
          128 * x.shifts[x_block]);
      sum += weight_value * x_value;
    }
  }
  return round_once(sum);
}

}  // namespace micromix::kernels::cuda
