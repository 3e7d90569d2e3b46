// Packed words to the BF16 operands of a tensor-core instruction, scaled.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/packed_layout.h"

namespace micromix::kernels::cuda {

// Two BF16 products; exact here. Subnormal operands count (the bare fields are such).
__device__ inline uint32_t multiply_pair(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(a),
                                         reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(product);
}

// Byte INDEX of WORD as the exponent field of a pair of equal BF16 powers of two; 0 is zero. A
// multiplication instead of a shift: it leaves the integer pipe, which expansion fills, alone.
template <int index>
__device__ uint32_t scale_pair(uint32_t word) {
  return __byte_perm(word, 0, 0x4440 | index) * 0x00800080u;
}

// Both sides' sign and three bits below it, the exponent's low two and the mantissa's first.
constexpr uint32_t kSigns = 0x80008000u;
constexpr uint32_t kThrees = 0x01C001C0u;

// Those of register REG's pair, in place.
template <int reg>
__device__ uint32_t upper_fields(uint32_t word) {
  if constexpr (reg == 0) return word & (kSigns | kThrees);
  if constexpr (reg == 1) return (word << 3 & kThrees) | (word << 2 & kSigns);
  if constexpr (reg == 2) return word << 6 & (kSigns | kThrees);
  if constexpr (reg == 3) return (word >> 4 & kThrees) | (word << 1 & kSigns);
}

// The other two bits of a 6-bit format's pair.
template <mx::Format format, int step, int reg>
__device__ uint32_t lower_fields(uint32_t word) {
  constexpr int kRotation = lower_rotation(format, step, reg);
  constexpr uint32_t kMask = format == mx::Format::kE2M3 ? 0x00300030u : 0x02200220u;
  if constexpr (kRotation <= 0) {
    return word << -kRotation & kMask;
  } else {
    return __funnelshift_r(word, word, kRotation) & kMask;
  }
}

// A lane's packed words of one half and block: both steps' upper words and the lower one, or of
// E4M3 four words of bytes.
struct PackedWords {
  uint32_t word[4];
};

template <mx::Format format>
__device__ PackedWords load_words(const uint8_t* record, int half, int block, int lane) {
  const int at = (block * 2 + half) * kLanes + lane;
  if constexpr (format == mx::Format::kE4M3) {
    const uint4 four = reinterpret_cast<const uint4*>(record)[at];
    return {{four.x, four.y, four.z, four.w}};
  }
  const uint2 upper = reinterpret_cast<const uint2*>(record)[at];
  if constexpr (format == mx::Format::kE2M1) return {{upper.x, upper.y}};
  return {{upper.x, upper.y, reinterpret_cast<const uint32_t*>(record)[8 * kLanes + at]}};
}

// The fields of register REG's pair as BF16: element * 2^(bias - 127). Its exponent field is the
// element's own, so subnormal elements are subnormal here.
template <mx::Format format, int step, int reg>
__device__ uint32_t fields(const PackedWords& packed) {
  if constexpr (format == mx::Format::kE4M3) {
    constexpr uint32_t kRest = 0x07F007F0u;
    const uint32_t word = packed.word[step * 2 + reg / 2];
    return reg % 2 == 0 ? (word & kSigns) | (word >> 4 & kRest)
                        : (word << 8 & kSigns) | (word << 4 & kRest);
  } else {
    const uint32_t upper = upper_fields<reg>(packed.word[step]);
    if constexpr (format == mx::Format::kE2M1) return upper;
    return upper | lower_fields<format, step, reg>(packed.word[2]);
  }
}

// Operand A of one step: SCALE_LOW is of rows g, SCALE_HIGH of rows g + 8.
template <mx::Format format, int step>
__device__ void expand(const PackedWords& packed, uint32_t scale_low, uint32_t scale_high,
                       uint32_t (&a)[4]) {
  a[0] = multiply_pair(fields<format, step, 0>(packed), scale_low);
  a[1] = multiply_pair(fields<format, step, 1>(packed), scale_high);
  a[2] = multiply_pair(fields<format, step, 2>(packed), scale_low);
  a[3] = multiply_pair(fields<format, step, 3>(packed), scale_high);
}

// SUM [16, 8] += A [16, 16] B [16, 8], BF16 operands, FP32 sums.
__device__ inline void multiply_accumulate(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                           uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Operands B of a block's two steps, from eight exact rows in shared memory: ADDRESS, of one of
// them, is as exact_rows_at() says.
__device__ inline uint4 load_exact_rows(uint32_t address) {
  uint4 b;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b.x), "=r"(b.y), "=r"(b.z), "=r"(b.w)
               : "r"(address));
  return b;
}
// Where the lane's address points to, from a block's first row on: a piece of ROW, which is row
// lane % 8 of the eight.
__device__ inline int exact_rows_at(int row, int lane) {
  return row * kExactBlockBytes + exact_piece(row, lane / 8) * 16;
}

// A lane's packed words of a block: where they are read from, and read.
template <mx::Format format>
struct UnreadWords {
  const uint8_t* record;
  int block, lane;

  __device__ PackedWords operator()(int half) const {
    return load_words<format>(record, half, block, lane);
  }
};
template <mx::Format format>
struct BlockWords {
  PackedWords of_half[2];

  __device__ explicit BlockWords(const UnreadWords<format>& unread)
      : of_half{unread(0), unread(1)} {}
  __device__ const PackedWords& operator()(int half) const { return of_half[half]; }
};

// A lane's scales of a record, of both halves.
template <mx::Format format>
__device__ uint2 load_scales(const uint8_t* record, int lane) {
  return *reinterpret_cast<const uint2*>(record + code_bytes(format) + lane / 4 * 8);
}

// Operands A of a block, [half][step]. WORDS(half) are the lane's packed words.
template <mx::Format format, int block, typename Words>
__device__ void expand_block(const Words& words, const uint2& scales, uint32_t (&a)[2][2][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t word = half == 0 ? scales.x : scales.y;
    const uint32_t low = scale_pair<block>(word), high = scale_pair<2 + block>(word);
    const PackedWords packed = words(half);
    expand<format, 0>(packed, low, high, a[half][0]);
    expand<format, 1>(packed, low, high, a[half][1]);
  }
}

// A block of a record times kTiles tiles of 8 rows of the activation. WORDS(half) are the lane's
// packed words, ROWS(block, tile) its operands of a tile (load_exact_rows()). Both halves are
// expanded first, so that a tile's are wanted once.
template <mx::Format format, int block, int kTiles, typename Words, typename Rows>
__device__ void multiply_block(const Words& words, const uint2& scales, const Rows& rows,
                               float (&sums)[2][kTiles][4]) {
  uint32_t a[2][2][4];
  expand_block<format, block>(words, scales, a);
  // The two products that add to one sum stand apart, for the second waits for the first.
  constexpr int kTogether = kTiles < 4 ? kTiles : 4;
#pragma unroll
  for (int first = 0; first < kTiles; first += kTogether) {
    uint4 b[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) b[i] = rows(block, first + i);
#pragma unroll
    for (int i = 0; i < 2 * kTogether; ++i) {
      const uint4& of_tile = b[i / 2];
      multiply_accumulate(sums[i % 2][first + i / 2], a[i % 2][0], of_tile.x, of_tile.y);
    }
#pragma unroll
    for (int i = 0; i < 2 * kTogether; ++i) {
      const uint4& of_tile = b[i / 2];
      multiply_accumulate(sums[i % 2][first + i / 2], a[i % 2][1], of_tile.z, of_tile.w);
    }
  }
}

// A record (in shared memory) times kTiles tiles, MEANWHILE() between its blocks. Where tiles are
// many, and warps therefore few, packed words are read a block ahead.
template <mx::Format format, int kTiles, typename Rows, typename Meanwhile>
__device__ void multiply_record(const uint8_t* record, int lane, const Rows& rows,
                                const Meanwhile& meanwhile, float (&sums)[2][kTiles][4]) {
  const uint2 scales = load_scales<format>(record, lane);
  const UnreadWords<format> first{record, 0, lane}, second{record, 1, lane};
  if constexpr (kTiles >= 4) {
    const BlockWords<format> first_read(first), second_read(second);
    multiply_block<format, 0>(first_read, scales, rows, sums);
    meanwhile();
    multiply_block<format, 1>(second_read, scales, rows, sums);
  } else {
    multiply_block<format, 0>(first, scales, rows, sums);
    meanwhile();
    multiply_block<format, 1>(second, scales, rows, sums);
  }
}

// Calls WORK.operator()<format>() of a format known at run time, the same in all lanes.
template <typename Work>
__device__ void with_format(mx::Format format, const Work& work) {
  switch (format) {
    case mx::Format::kE2M1:
      return work.template operator()<mx::Format::kE2M1>();
    case mx::Format::kE2M3:
      return work.template operator()<mx::Format::kE2M3>();
    case mx::Format::kE3M2:
      return work.template operator()<mx::Format::kE3M2>();
    default:
      return work.template operator()<mx::Format::kE4M3>();
  }
}

}  // namespace micromix::kernels::cuda
