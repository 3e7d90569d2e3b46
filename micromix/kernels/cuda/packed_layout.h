// The order of a mixed weight in device memory: packed at 4, 6 and 8 bits, as the fragments that
// tensor-core instructions take as their operand A.
//
// A *panel* is 32 rows of the weight (N padded), a *chunk* 64 channels of one segment (segments
// padded), and their intersection a *record*: codes, then scales. A panel's records lie one after
// another, in the order of chunks. So a warp that multiplies a record reads consecutive bytes, and
// lane by lane 16 (or 8) consecutive ones.
//
// A record holds two halves of 16 rows, each four fragments of mma.m16n8k16: block b in {0, 1} of
// 32 channels, step t in {0, 1}. Lane 4 g + q of a fragment holds registers r in 0...3 of two
// values e in {0, 1}: row g + 8 (r % 2) and channel 32 b + 16 t + 8 (r / 2) + 2 q + e.
//
// Within a word, bits stand where few shifts and masks put them into the fields of a pair of BF16
// numbers (expand.cuh).
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/host_device.h"
#include "micromix/kernels/cuda/weight_segments.h"
#include "micromix/mx/format.h"

namespace micromix::kernels::cuda {

inline constexpr int kPanel = 32;
inline constexpr int kLanes = 32;
inline constexpr int kScaleBytes = kPanel * kBlocksPerChunk;

MICROMIX_HOST_DEVICE constexpr int exponent_bias(mx::Format format) {
  return format == mx::Format::kE4M3 ? 7 : format == mx::Format::kE3M2 ? 3 : 1;
}
MICROMIX_HOST_DEVICE constexpr int code_bytes(mx::Format format) {
  return kPanel * kChunk * bits_of(format) / 8;
}
MICROMIX_HOST_DEVICE constexpr int record_bytes(mx::Format format) {
  return code_bytes(format) + kScaleBytes;
}

// Where an element of a record lies: fragment (half, block, step), lane, register and side.
struct FragmentPlace {
  int half, block, step, lane, reg, side;
};
MICROMIX_HOST_DEVICE constexpr FragmentPlace fragment_place(int row, int channel) {
  const int in_block = channel % 32;
  return {row / 16,
          channel / 32,
          in_block / 16,
          row % 8 * 4 + in_block % 8 / 2,
          row % 16 / 8 + in_block % 16 / 8 * 2,
          in_block % 2};
}

// Words of codes come in planes. Formats of 4 and 6 bits have their sign and three other bits in
// words [block][half][lane][step]; those of 6 the other two in words [block][half][lane] behind.
// E4M3 has words [block][half][lane][step][reg / 2].
MICROMIX_HOST_DEVICE constexpr int upper_word(const FragmentPlace& at) {
  return ((at.block * 2 + at.half) * kLanes + at.lane) * 2 + at.step;
}
MICROMIX_HOST_DEVICE constexpr int lower_word(const FragmentPlace& at) {
  return 8 * kLanes + (at.block * 2 + at.half) * kLanes + at.lane;
}
MICROMIX_HOST_DEVICE constexpr int byte_word(const FragmentPlace& at) {
  return ((at.block * 2 + at.half) * kLanes + at.lane) * 4 + at.step * 2 + at.reg / 2;
}

// Upper words: of each register's pair the sign, the exponent's two low bits and the mantissa's
// first, which belong to bits 15, 8, 7 and 6 of a BF16 number. The three stand together, and all 16
// bits of a side are taken; shifts to the left are the cheaper ones (expand.cuh).
enum UpperBit { kMantissa, kExponent0, kExponent1, kSign };
MICROMIX_HOST_DEVICE constexpr int upper_bit(const FragmentPlace& at, UpperBit bit) {
  constexpr int kThree[4] = {6, 3, 0, 10};
  constexpr int kSigns[4] = {15, 13, 9, 14};
  return (bit == kSign ? kSigns[at.reg] : kThree[at.reg] + bit) + 16 * at.side;
}
// Lower words: the pairs of both steps, each rotated to the left from where its bits belong: of
// E2M3 the mantissa's two low bits (4 and 5), of E3M2 the mantissa's low bit and the exponent's
// third (5 and 9).
MICROMIX_HOST_DEVICE constexpr int lower_rotation(mx::Format format, int step, int reg) {
  constexpr int kOfE2M3[8] = {0, -2, -4, 2, 4, 6, 8, 10};
  constexpr int kOfE3M2[8] = {0, -1, -2, -3, 5, 6, 7, 8};
  return (format == mx::Format::kE2M3 ? kOfE2M3 : kOfE3M2)[step * 4 + reg];
}
MICROMIX_HOST_DEVICE constexpr int lower_bit(mx::Format format, const FragmentPlace& at, int bit) {
  const int home = format == mx::Format::kE2M3 ? 4 + bit : bit == 0 ? 5 : 9;
  return (home + lower_rotation(format, at.step, at.reg) + 16 * at.side) % 32;
}
// E4M3: even registers in the upper bytes of both 16-bit sides, odd ones in the lower.
MICROMIX_HOST_DEVICE constexpr int byte_shift(const FragmentPlace& at) {
  return 16 * at.side + (at.reg % 2 == 0 ? 8 : 0);
}

// A record's scales: bytes [row % 8][row / 8][block], so that a lane's eight are one word pair.
MICROMIX_HOST_DEVICE constexpr int scale_byte(int row, int block) {
  return row % 8 * 8 + row / 8 * 2 + block;
}

// A packed weight as kernels see it. By value.
struct WeightView : WeightSegments {
  int64_t n;
  int32_t panels;
  const uint8_t* records;  // [panels][panel_bytes]
  // A row's power of two, which its scales leave out; NaN for rows with a NaN; 0 for rows that come
  // from the oracle.
  const float* factors;  // [n]
  const float* bias;     // [n]; null: none
  // Rows whose scales the records cannot hold, ascending, and their scale bytes as stored.
  int32_t oracle_count;
  const int32_t* oracle_rows;
  const uint8_t* oracle_scales;  // [oracle_count][chunks * kBlocksPerChunk]
};

// The record of chunk CHUNK, one of SEGMENT's, in panel PANEL.
MICROMIX_HOST_DEVICE inline const uint8_t* record_of(const WeightView& weight, int64_t panel,
                                                     const WeightView::Segment& segment,
                                                     int chunk) {
  return weight.records + panel * weight.panel_bytes + segment.offset +
         int64_t{chunk - segment.first_chunk} * segment.record_bytes;
}

// A scale exponent s is kept relative to its row's reference r, one less than the row's largest
// (but -126 at least), which factors[] holds as 2^r. The byte is the exponent field of the BF16
// number that lifts the bare fields (element * 2^(bias - 127), see expand.cuh) to element * 2^(s -
// r); it fits for s - r <= 1. Exact for s - r >= -117. All-zero blocks have byte 0, whatever their
// scale.
inline constexpr int kLowestRelativeExponent = kLowestExactExponent;
MICROMIX_HOST_DEVICE constexpr int stored_scale(mx::Format format, int relative) {
  return 254 - exponent_bias(format) + relative;
}

}  // namespace micromix::kernels::cuda
