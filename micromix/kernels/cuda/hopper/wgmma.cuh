// Products of a warpgroup, four warps, that run while it goes on (wgmma, sm_90a): weights in
// registers by X in shared memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include "micromix/kernels/cuda/activations.h"

namespace micromix::kernels::cuda::hopper {

inline constexpr int kProductDepth = 16;  // channels

// Operand B, kProductDepth channels of exact rows from ADDRESS on. The rows' block
// begins at a multiple of 512 bytes; ADDRESS is that or 32 bytes more, for its other half.
__device__ inline uint64_t operand_of(uint32_t address) {
  constexpr uint64_t kSwizzle64 = 2;
  constexpr uint64_t kEightRows = 8 * kExactBlockBytes;  // bytes from one eight to the next
  return kSwizzle64 << 62 | kEightRows >> 4 << 32 | (address & 0x3FFFF) >> 4;
}

// Changes how many registers a thread of the warpgroup has, which waits for them.
template <int count>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

// Before products that read registers written since the last.
__device__ inline void fence_registers() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Ends a group of products; all but the last PENDING groups are then waited for.
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler, which knows nothing of products that run on, from moving what it does with
// their sums or operands A across this place. Costs no instruction.
template <typename Word, int count>
__device__ void pin_registers(Word (&of_halves)[2][count][4]) {
#pragma unroll
  for (auto& of_half : of_halves) {
#pragma unroll
    for (auto& w : of_half) {
      if constexpr (std::is_same_v<Word, float>) {
        asm volatile("" : "+f"(w[0]), "+f"(w[1]), "+f"(w[2]), "+f"(w[3])::"memory");
      } else {
        asm volatile("" : "+r"(w[0]), "+r"(w[1]), "+r"(w[2]), "+r"(w[3])::"memory");
      }
    }
  }
}

// SUM [64, N] += A [64, 16] B [16, N] for N of 32, 64 or 128. A warp has rows 16 w ... 16 w + 15 of
// SUM and of A, and a lane of them what it would have of mma.m16n8k16. SUM and A are not to be
// touched before wait_for_products().
#define MICROMIX_SUM(i) "+f"(sum[i][0]), "+f"(sum[i][1]), "+f"(sum[i][2]), "+f"(sum[i][3])
__device__ inline void begin_product(float (&sum)[4][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{.reg .pred add; setp.eq.u32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "{%16, %17, %18, %19}, %20, add, 1, 1, 0;}"
      : MICROMIX_SUM(0), MICROMIX_SUM(1), MICROMIX_SUM(2), MICROMIX_SUM(3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void begin_product(float (&sum)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{.reg .pred add; setp.eq.u32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, add, 1, 1, 0;}"
      : MICROMIX_SUM(0), MICROMIX_SUM(1), MICROMIX_SUM(2), MICROMIX_SUM(3), MICROMIX_SUM(4),
        MICROMIX_SUM(5), MICROMIX_SUM(6), MICROMIX_SUM(7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void begin_product(float (&sum)[16][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{.reg .pred add; setp.eq.u32 add, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "
      "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "
      "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "
      "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, add, 1, 1, 0;}"
      : MICROMIX_SUM(0), MICROMIX_SUM(1), MICROMIX_SUM(2), MICROMIX_SUM(3), MICROMIX_SUM(4),
        MICROMIX_SUM(5), MICROMIX_SUM(6), MICROMIX_SUM(7), MICROMIX_SUM(8), MICROMIX_SUM(9),
        MICROMIX_SUM(10), MICROMIX_SUM(11), MICROMIX_SUM(12), MICROMIX_SUM(13), MICROMIX_SUM(14),
        MICROMIX_SUM(15)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef MICROMIX_SUM

}  // namespace micromix::kernels::cuda::hopper
