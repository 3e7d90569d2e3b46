// The rows of a linear's input on a GPU: what the fused quantizers write and products read.
//
// Two forms. *Exact rows* are what the BF16 tensor-core product multiplies: every element times its
// block's scale is a BF16 number for scale exponents -117...112 (E4M3's smallest element is 2^-9
// and BF16's smallest normal 2^-126; its largest below 2^9 and BF16's below 2^128), so they are
// stored as BF16, whatever the format. *Code rows* are packed codes and scale bytes, for products
// that multiply codes.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/host_device.h"
#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"

namespace micromix::kernels::cuda {

// Products read K in chunks of this many channels. Each segment is padded to whole chunks, in
// weights with zero codes and in exact rows with zeros.
inline constexpr int kChunk = 64;
inline constexpr int kBlocksPerChunk = kChunk / mx::kBlockSize;
inline constexpr int kMostSegments = 4;
inline constexpr int32_t kMostChannels = 65536;         // of a row, K
inline constexpr int64_t kMostRows = int64_t{1} << 30;  // M

// A plan's activation side, its pointers in device memory. Passed to kernels by value.
struct PlanView {
  struct Segment {
    mx::Format format;    // E2M1 to E4M3; not read where bf16
    bool bf16;            // BF16 activations: the rounded values as they are
    int32_t first;        // its first permuted channel
    int32_t channels;     // a multiple of 32
    int32_t first_block;  // in exact rows; a multiple of kBlocksPerChunk
  };
  int32_t k;
  int32_t blocks;  // of 32 in exact rows, padding included
  int32_t segment_count;
  Segment segments[kMostSegments];
  mx::ScaleRule rule;
  const int32_t* permutation;  // [k]; null: identity
};

// Exact rows: VALUES [blocks][m][32], channels of a block in the order of exact_place(). A block
// whose scale exponent lies outside -117...112 is stored times 2^(-128 * SHIFTS[block][m]), SHIFTS
// being -1, 0 or 1 (as the exponent is below, inside or above), which makes it exact again;
// SPECIAL[m] is 1 where a row has such a block. A block with NaN or Inf is all NaN. An all-zero
// block is zeros. Padding is zeros with shift 0.
struct ExactRows {
  int64_t m;
  __nv_bfloat16* values;
  int8_t* shifts;
  uint8_t* special;
};
inline constexpr int kExactBlockBytes = mx::kBlockSize * 2;  // of a row
// Where channel CHANNEL, 0 to 31, of row ROW stands in its block: pieces of eight, 16 bytes, are
// exchanged by row. Copied to shared memory as they are, any piece of eight rows lies in all banks
// then. wgmma calls it a swizzle of 64 bytes.
MICROMIX_HOST_DEVICE constexpr int exact_piece(int64_t row, int piece) {
  return piece ^ static_cast<int>(row >> 1 & 3);
}
MICROMIX_HOST_DEVICE constexpr int exact_place(int64_t row, int channel) {
  return exact_piece(row, channel / 8) * 8 + channel % 8;
}
inline constexpr int kLowestExactExponent = -117;
inline constexpr int kHighestExactExponent = 112;

MICROMIX_HOST_DEVICE constexpr int bits_of(mx::Format format) {
  return format == mx::Format::kE2M1 ? 4 : format == mx::Format::kE4M3 ? 8 : 6;
}

// Code rows: per segment CODES [chunks][m][chunk_bytes(format)], a row's two blocks of a chunk each
// packed as in a checkpoint (mx/packing.h), in the order that stored_block() says; and of all
// segments SCALES [chunks][padded_rows(m)][2], in the blocks' order. Padding is zero codes with
// scales of one; scales of rows beyond m may be anything. Only of plans without BF16 segments.
struct CodeRows {
  int64_t m;
  struct Segment {
    mx::Format format;
    uint8_t* codes;  // 16-byte aligned
  };
  Segment segments[kMostSegments];
  uint8_t* scales;  // 16-byte aligned
};
MICROMIX_HOST_DEVICE constexpr int block_bytes(mx::Format format) {
  return mx::kBlockSize * bits_of(format) / 8;
}
// Of a row.
MICROMIX_HOST_DEVICE constexpr int chunk_bytes(mx::Format format) {
  return kBlocksPerChunk * block_bytes(format);
}
// So that eight rows' scales are 16 aligned bytes.
MICROMIX_HOST_DEVICE constexpr int64_t padded_rows(int64_t m) {
  return (m + 7) / 8 * 8;
}
// Where block BLOCK, 0 or 1, of row ROW stands in its chunk. Copied to shared memory as they are,
// eight rows of 32 or 64 bytes would have a block in the same banks, were not blocks exchanged in
// every other four or two of them.
MICROMIX_HOST_DEVICE constexpr int stored_block(int bits, int64_t row, int block) {
  const auto exchanged = static_cast<int>(bits == 4 ? row >> 2 & 1 : bits == 8 ? row >> 1 & 1 : 0);
  return block ^ exchanged;
}

}  // namespace micromix::kernels::cuda
