// The instructions that tests of block_scaled/mma.cuh hold against each other, each on the
// registers of one warp.
#pragma once

#include <array>
#include <cstdint>
#include <ostream>
#include <span>
#include <vector>

namespace micromix::testing {

enum class Instruction {
  kEmulatedE2m1,
  kEmulatedE4m3,
  kNativeE2m1,  // compute capability 12.x, in a build for it
  kNativeE4m3,
  kS4,    // mma.m16n8k64.s32.s4.s4.s32
  kS8,    // mma.m16n8k32.s32.s8.s8.s32
  kE4m3,  // mma.m16n8k32.f32.e4m3.e4m3.f32, compute capability 8.9
};

constexpr const char* name(Instruction instruction) {
  constexpr std::array kNames = {"EmulatedE2m1", "EmulatedE4m3", "NativeE2m1", "NativeE4m3",
                                 "S4",           "S8",           "E4m3"};
  return kNames[static_cast<size_t>(instruction)];
}

// For GoogleTest.
inline std::ostream& operator<<(std::ostream& out, Instruction instruction) {
  return out << name(instruction);
}

inline constexpr int kLanes = 32;

// What the lanes pass; instructions without scales ignore those, integer ones convert SUM.
struct WarpRegisters {
  uint32_t a[kLanes][4];
  uint32_t b[kLanes][2];
  float sum[kLanes][4];
  uint32_t a_scales[kLanes];
  uint32_t b_scales[kLanes];
};

using WarpSums = std::array<std::array<float, 4>, kLanes>;

// Whether this GPU has it and the code that this GPU runs was compiled with it.
bool available(Instruction instruction);

// SUM + A B of each warp.
std::vector<WarpSums> multiply(Instruction instruction, std::span<const WarpRegisters> warps);

}  // namespace micromix::testing
