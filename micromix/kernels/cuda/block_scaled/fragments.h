// Which lane of a warp holds which element of the block-scaled tensor-core instructions
// (PTX ISA, "Matrix Fragments for mma.m16n8k64" and "mma.m16n8k32", "Block Scaling for mma.sync"):
//
//   mma.m16n8k64, kind::mxf4, scale_vec::2X       E2M1 by E2M1; eight codes a register
//   mma.m16n8k32, kind::mxf8f6f4, scale_vec::1X   as E4M3 by E4M3; four codes a register
//
// D [16, 8] = C + A [16, K] B [K, 8], K being eight registers' codes. Both spread their operands in
// the same way: registers of lane 4 g + q hold consecutive k of row g or g + 8 of A, of column g of
// B, and what is in the second half of K is in the second half of registers.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/host_device.h"

namespace micromix::kernels::cuda::block_scaled {

inline constexpr int kMmaRows = 16;
inline constexpr int kMmaColumns = 8;

// K of the instruction with CODES codes a register, 8 or 4.
MICROMIX_HOST_DEVICE constexpr int mma_k(int codes) {
  return 8 * codes;
}

// A has four registers, B two. Code INDEX of a register is its INDEX-th from the lowest bits.
MICROMIX_HOST_DEVICE constexpr int a_row(int lane, int reg) {
  return lane / 4 + reg % 2 * 8;
}
MICROMIX_HOST_DEVICE constexpr int a_k(int codes, int lane, int reg, int index) {
  return reg / 2 * 4 * codes + lane % 4 * codes + index;
}
MICROMIX_HOST_DEVICE constexpr int b_column(int lane) {
  return lane / 4;
}
MICROMIX_HOST_DEVICE constexpr int b_k(int codes, int lane, int reg, int index) {
  return reg * 4 * codes + lane % 4 * codes + index;
}

// C and D have four.
MICROMIX_HOST_DEVICE constexpr int c_row(int lane, int reg) {
  return lane / 4 + reg / 2 * 8;
}
MICROMIX_HOST_DEVICE constexpr int c_column(int lane, int reg) {
  return lane % 4 * 2 + reg % 2;
}

// The lane whose scale register counts for a row of A or a column of B, with selectors {0, 0}. Its
// byte 0 is of the first 32 k, byte 1 of the other 32 that scale_vec::2X has.
MICROMIX_HOST_DEVICE constexpr int a_scale_lane(int row) {
  return row % 8 * 4 + row / 8;
}
MICROMIX_HOST_DEVICE constexpr int b_scale_lane(int column) {
  return column * 4;
}

}  // namespace micromix::kernels::cuda::block_scaled
