// Both operands of the block-scaled product in device memory: packed at 4, 6 and 8 bits, K in
// chunks of 64 channels (activations.h), segments padded to whole ones with zero codes.
//
// The weight is operand A. Its records are 16 rows of one chunk, in the order of fragments: a lane
// reads consecutive bytes. X, operand B, is code rows.
//
// The order of K inside a block is free as long as both operands agree. Everywhere lane 4 g + q has
// channels 8 q ... 8 q + 7 of a block of row g: E2M1's instruction takes them as they are, E4M3's
// the even ones in the first half of K and the odd ones in the second.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/block_scaled/fragments.h"
#include "micromix/kernels/cuda/weight_segments.h"
#include "micromix/mx/format.h"

namespace micromix::kernels::cuda::block_scaled {

inline constexpr int kRecordRows = kMmaRows;
inline constexpr int kScaleBytes = kRecordRows * kBlocksPerChunk;

MICROMIX_HOST_DEVICE constexpr int code_bytes(mx::Format format) {
  return kRecordRows * chunk_bytes(format);
}
// A record: codes, then scale bytes [row][block].
MICROMIX_HOST_DEVICE constexpr int record_bytes(mx::Format format) {
  return code_bytes(format) + kScaleBytes;
}

// Where a format's fields stand in E4M3's they mean element * 2^-units: the difference of exponent
// biases. Subnormal elements too, as mantissas begin at the same place and E4M3's subnormals share
// its smallest exponent.
MICROMIX_HOST_DEVICE constexpr int units_of(mx::Format format) {
  return format == mx::Format::kE4M3 ? 0 : format == mx::Format::kE3M2 ? 4 : 6;
}
// The code in E4M3's fields.
MICROMIX_HOST_DEVICE constexpr uint32_t e4m3_fields(mx::Format format, uint32_t code) {
  const int bits = bits_of(format);
  const uint32_t magnitude = code & ((1u << (bits - 1)) - 1);
  const int shift = format == mx::Format::kE2M1 ? 2 : format == mx::Format::kE3M2 ? 1 : 0;
  return code >> (bits - 1) << 7 | magnitude << shift;
}

// The fragment of one block of a record, as E4M3's instruction takes it: byte INDEX of register REG
// of a lane is this row and channel of the block.
MICROMIX_HOST_DEVICE constexpr int fragment_row(int lane, int reg) {
  return a_row(lane, reg);
}
MICROMIX_HOST_DEVICE constexpr int fragment_channel(int lane, int reg, int index) {
  return lane % 4 * 8 + index * 2 + reg / 2;
}

// A record's codes:
//   E2M1    words [lane][block][row / 8], eight channels each, the first in the lowest bits: the
//           four registers of E2M1's instruction
//   E4M3    words [block][lane][register] of fragments
//   6 bits  words [lane][block][register] of registers 0 and 1, then [lane][block] of register 2,
//   in
//           E4M3's fields; the two bits of a byte that these leave free hold register 3's six, as
//           spare_bits() says
struct SpareBits {
  int from, to;  // bits of a byte
};
// Where register REG < 3 holds two bits of register 3.
MICROMIX_HOST_DEVICE constexpr SpareBits spare_bit(mx::Format format, int reg, int which) {
  constexpr SpareBits kOfE2M3[3][2] = {{{5, 3}, {6, 4}}, {{5, 1}, {6, 2}}, {{5, 0}, {6, 7}}};
  constexpr SpareBits kOfE3M2[3][2] = {{{0, 1}, {6, 5}}, {{0, 2}, {6, 4}}, {{0, 3}, {6, 7}}};
  return format == mx::Format::kE2M3 ? kOfE2M3[reg][which] : kOfE3M2[reg][which];
}
MICROMIX_HOST_DEVICE constexpr int fragment_word(mx::Format format, int block, int lane, int reg) {
  if (format == mx::Format::kE4M3) return (block * kWarp + lane) * 4 + reg;
  return reg < 2 ? lane * 4 + block * 2 + reg : kWarp * 4 + lane * 2 + block;
}

// A weight as kernels see it. By value.
struct WeightView : WeightSegments {
  int64_t n;
  int32_t panels;          // of 16 rows, N padded
  const uint8_t* records;  // [panels][panel_bytes]
  const float* bias;       // [n]; null: none
};

}  // namespace micromix::kernels::cuda::block_scaled
