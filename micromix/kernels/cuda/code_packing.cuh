// Codes of rounded values to the bytes of code rows. Words have two sides (block_rounding.cuh),
// whose codes go apart.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/block_rounding.cuh"

namespace micromix::kernels::cuda {

// A side's upper byte of two words, of side 0 first; and whether its sign is set, in all bits of a
// byte.
__device__ inline uint32_t upper_bytes(uint32_t a, uint32_t b) {
  return __byte_perm(a, b, 0x7351);
}
__device__ inline uint32_t sign_bytes(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, 0xFBD9;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}

// Packed: four in the low 4 BITS bits of each word; of 4 bits all in the low word.
struct EightCodes {
  uint32_t low, high;
};

// Codes of 8 words of values X from their MAGNITUDES (code_magnitudes()), to each side's.
template <int kBits>
__device__ void pack_codes(const uint32_t* x, const uint32_t (&magnitudes)[8],
                           EightCodes (&codes)[kSides]) {
  uint32_t fours[2][kSides];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t* const of = magnitudes + 4 * i;
    const uint32_t* const from = x + 4 * i;
    if constexpr (kBits == 4) {
      const uint32_t bytes = upper_bytes(of[0], of[2]) + upper_bytes(of[1], of[3]) * 16;
      const uint32_t even = sign_bytes(from[0], from[2]), odd = sign_bytes(from[1], from[3]);
      fours[i][0] = bytes | (((even & 0x0F0F0F0Fu) | (odd & 0xF0F0F0F0u)) & 0x88888888u);
    } else {
      constexpr uint32_t kSign = 0x01010101u << (kBits - 1);
      uint32_t twos[2];  // two codes of each side
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint32_t bytes = upper_bytes(of[2 * j], of[2 * j + 1]) |
                               (sign_bytes(from[2 * j], from[2 * j + 1]) & kSign);
        twos[j] = kBits == 8 ? bytes : (bytes & 0x003F003Fu) | (bytes >> 2 & 0x0FC00FC0u);
      }
      fours[i][0] = low_sides(twos[0], twos[1]);
      fours[i][1] = high_sides(twos[0], twos[1]);
      if constexpr (kBits == 6) {
        for (uint32_t& four : fours[i]) four = (four & 0xFFFu) | (four >> 4 & 0xFFF000u);
      }
    }
  }
  if constexpr (kBits == 4) {
    codes[0].low = low_sides(fours[0][0], fours[1][0]);
    codes[1].low = high_sides(fours[0][0], fours[1][0]);
  } else {
#pragma unroll
    for (int side = 0; side < kSides; ++side) codes[side] = {fours[0][side], fours[1][side]};
  }
}

// CODES, a thread's 16, to a block's 4 BITS bytes.
template <int kBits>
__device__ void store_codes(uint8_t* block, int half, const EightCodes& first,
                            const EightCodes& second) {
  if constexpr (kBits == 4) {
    reinterpret_cast<uint2*>(block)[half] = {first.low, second.low};
  } else if constexpr (kBits == 8) {
    reinterpret_cast<uint4*>(block)[half] = {first.low, first.high, second.low, second.high};
  } else {
    // Blocks begin at multiples of eight bytes: the first half has its eight in front, the second
    // behind.
    const uint32_t words[3] = {first.low | first.high << 24, first.high >> 8 | second.low << 16,
                               second.low >> 16 | second.high << 8};
    const bool front = half == 0;
    reinterpret_cast<uint2*>(block)[2 * half] =
        front ? uint2{words[0], words[1]} : uint2{words[1], words[2]};
    reinterpret_cast<uint32_t*>(block)[2 + half] = front ? words[2] : words[0];
  }
}

}  // namespace micromix::kernels::cuda
