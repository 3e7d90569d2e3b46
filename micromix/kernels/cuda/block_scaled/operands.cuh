// From shared memory to the registers of the block-scaled instructions: E2M1's codes as they are,
// every format's in E4M3's fields.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/block_scaled/layout.h"

namespace micromix::kernels::cuda::block_scaled {

// E2M1's eight codes: the even ones in E4M3's fields, then the odd ones.
__device__ inline uint2 expand_e2m1(uint32_t word) {
  constexpr uint32_t kSign = 0x80808080u, kRest = 0x1C1C1C1Cu;
  return {(word << 4 & kSign) | (word << 2 & kRest), (word & kSign) | (word >> 2 & kRest)};
}

// ---- The weight, operand A

// Both blocks' registers for E2M1's instruction: of rows g and g + 8 of block 0, then of block 1.
__device__ inline uint4 load_e2m1_record(const uint8_t* record, int lane) {
  return reinterpret_cast<const uint4*>(record)[lane];
}

// Register 3 of a 6-bit format, from what the others leave free (layout.h).
template <mx::Format format>
__device__ uint32_t collect_spare_bits(const uint32_t (&words)[3]) {
  if constexpr (format == mx::Format::kE2M3) {
    return (words[0] >> 2 & 0x18181818u) | (words[1] >> 4 & 0x06060606u) |
           (words[2] >> 5 & 0x01010101u) | (words[2] << 1 & 0x80808080u);
  }
  return (words[0] << 1 & 0x02020202u) | (words[0] >> 1 & 0x20202020u) |
         (words[1] << 2 & 0x04040404u) | (words[1] >> 2 & 0x10101010u) |
         (words[2] << 3 & 0x08080808u) | (words[2] << 1 & 0x80808080u);
}

// Registers of one block for E4M3's instruction.
template <mx::Format format>
__device__ void load_fragment(const uint8_t* record, int block, int lane, uint32_t (&a)[4]) {
  const auto* const words = reinterpret_cast<const uint32_t*>(record);
  if constexpr (format == mx::Format::kE2M1) {
    const uint2 rows = reinterpret_cast<const uint2*>(record)[lane * 2 + block];
    const uint2 low = expand_e2m1(rows.x), high = expand_e2m1(rows.y);
    a[0] = low.x, a[1] = high.x, a[2] = low.y, a[3] = high.y;
  } else if constexpr (format == mx::Format::kE4M3) {
    const uint4 four = reinterpret_cast<const uint4*>(record)[block * kWarp + lane];
    a[0] = four.x, a[1] = four.y, a[2] = four.z, a[3] = four.w;
  } else {
    const uint2 two =
        reinterpret_cast<const uint2*>(words + fragment_word(format, block, lane, 0))[0];
    const uint32_t packed[3] = {two.x, two.y, words[fragment_word(format, block, lane, 2)]};
    constexpr uint32_t kFields = format == mx::Format::kE2M3 ? 0x9F9F9F9Fu : 0xBEBEBEBEu;
#pragma unroll
    for (int reg = 0; reg < 3; ++reg) a[reg] = packed[reg] & kFields;
    a[3] = collect_spare_bits<format>(packed);
  }
}

// Scale bytes of both blocks, in the lanes that the instructions take them from.
__device__ inline uint32_t load_record_scales(const uint8_t* record, mx::Format format, int lane) {
  const auto* const rows = reinterpret_cast<const uint16_t*>(record + code_bytes(format));
  return rows[lane % 2 * 8 + lane / 4];
}

// ---- X, operand B

// Rows of one chunk lie in shared memory as in CodeRows.

template <int count>
__device__ void load_matrices(uint32_t address, uint32_t* registers) {
  static_assert(count == 1 || count == 2 || count == 4);
  if constexpr (count == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (count == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  }
}

// Eight channels of E2M1 for each of TILES of eight rows, a matrix of 8 x 16 bytes: of one block,
// or of both beside each other, as E2M1's instruction takes them.
template <int tiles>
__device__ void load_e2m1_rows(uint32_t rows, int block, int lane, uint32_t (&words)[tiles]) {
  const int row = lane % (8 * tiles);
  load_matrices<tiles>(
      rows + row * chunk_bytes(mx::Format::kE2M1) + stored_block(4, row, block) * 16, words);
}
template <int tiles>
__device__ void load_e2m1_rows(uint32_t rows, int lane, uint32_t (&b)[tiles][2]) {
  constexpr int kTogether = tiles == 1 ? 1 : 2;
  static_assert(tiles % kTogether == 0);
  const int row = lane / 16 % kTogether * 8 + lane % 8;
  const uint32_t address =
      rows + row * chunk_bytes(mx::Format::kE2M1) + stored_block(4, row, lane / 8 % 2) * 16;
#pragma unroll
  for (int tile = 0; tile < tiles; tile += kTogether) {
    load_matrices<2 * kTogether>(address + tile * 8 * chunk_bytes(mx::Format::kE2M1), b[tile]);
  }
}

// Eight codes of 6 bits, the lowest of LOW first, to E4M3's fields.
template <mx::Format format>
__device__ uint2 expand_six_bits(uint32_t low, uint32_t high) {
  // Two codes in each 16 bits, then even and odd ones apart, each in the low bits of a byte.
  const uint32_t upper = __funnelshift_r(low, high, 24);
  constexpr uint32_t kPair = 0x00000FFFu;
  const uint32_t first = (low & kPair) | (low << 4 & ~kPair);
  const uint32_t second = (upper & kPair) | (upper << 4 & ~kPair);
  const uint32_t even = __byte_perm(first, second, 0x6420);
  const uint32_t odd = __byte_perm(first << 2, second << 2, 0x7531);
  constexpr uint32_t kSign = 0x80808080u;
  if constexpr (format == mx::Format::kE2M3) {
    constexpr uint32_t kRest = 0x1F1F1F1Fu;
    return {(even << 2 & kSign) | (even & kRest), (odd << 2 & kSign) | (odd & kRest)};
  }
  constexpr uint32_t kRest = 0x3E3E3E3Eu;
  return {(even << 2 & kSign) | (even << 1 & kRest), (odd << 2 & kSign) | (odd << 1 & kRest)};
}

// Registers of one block for E4M3's instruction, of TILES of eight rows.
template <mx::Format format, int tiles>
__device__ void load_rows(const uint8_t* rows, uint32_t rows_address, int block, int lane,
                          uint32_t (&b)[tiles][2]) {
  if constexpr (format == mx::Format::kE2M1) {
    uint32_t words[tiles];
    load_e2m1_rows<tiles>(rows_address, block, lane, words);
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      const uint2 expanded = expand_e2m1(words[tile]);
      b[tile][0] = expanded.x, b[tile][1] = expanded.y;
    }
    return;
  }
  const uint8_t* const of_lane = rows + lane / 4 * chunk_bytes(format);
#pragma unroll
  for (int tile = 0; tile < tiles; ++tile) {
    const uint8_t* const row = of_lane + tile * 8 * chunk_bytes(format);
    uint2 registers;
    if constexpr (format == mx::Format::kE4M3) {
      const int half = stored_block(8, lane / 4, block);
      const uint2 codes = reinterpret_cast<const uint2*>(row)[half * 4 + lane % 4];
      registers = {__byte_perm(codes.x, codes.y, 0x6420), __byte_perm(codes.x, codes.y, 0x7531)};
    } else {
      // Six bytes from the sixth, twelfth or eighteenth of the block's 24 on, which is the middle
      // of a word in every other lane.
      const auto* const words =
          reinterpret_cast<const uint32_t*>(row + block * 24) + lane % 4 * 3 / 2;
      const uint32_t skipped = lane % 2 * 16;
      registers = expand_six_bits<format>(__funnelshift_r(words[0], words[1], skipped),
                                          words[1] >> skipped);
    }
    b[tile][0] = registers.x, b[tile][1] = registers.y;
  }
}

// Scale bytes of both blocks, of this lane's row in each tile.
template <int tiles>
__device__ void load_row_scales(const uint8_t* scales, int lane, uint32_t (&b)[tiles]) {
#pragma unroll
  for (int tile = 0; tile < tiles; ++tile) {
    b[tile] = reinterpret_cast<const uint16_t*>(scales)[tile * 8 + lane / 4];
  }
}

}  // namespace micromix::kernels::cuda::block_scaled
