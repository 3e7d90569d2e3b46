// The one thing that GPUs of compute capability 12.x alone have, as a policy of the product's
// kernel: NativeMma is the instructions, EmulatedMma computes the same from the same registers on
// any GPU. Both add A B, scaled, to SUM; fragments.h says what registers hold.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/block_scaled/fragments.h"
#include "micromix/mx/scale.h"

namespace micromix::kernels::cuda::block_scaled {

// Compiled for the family of compute capability 12.x (sm_120f), or for one of them (sm_120a).
#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__)
#if __CUDA_ARCH_FAMILY_SPECIFIC__ == 1200
#define MICROMIX_BLOCK_SCALED_MMA 1
#endif
#endif
#if defined(__CUDA_ARCH_FEAT_SM120_ALL) || defined(__CUDA_ARCH_FEAT_SM121_ALL)
#define MICROMIX_BLOCK_SCALED_MMA 1
#endif

struct NativeMma {
  // E2M1 by E2M1, K = 64; bytes 0 and 1 of scales.
  __device__ static void multiply_e2m1(float (&sum)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2], uint32_t a_scales,
                                       uint32_t b_scales) {
#ifdef MICROMIX_BLOCK_SCALED_MMA
    asm("mma.sync.aligned.kind::mxf4.block_scale.scale_vec::2X.m16n8k64.row.col.f32.e2m1.e2m1.f32"
        ".ue8m0 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, "
        "{%10}, {0, 0}, {%11}, {0, 0};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(a_scales),
          "r"(b_scales));
#else
    __trap();
#endif
  }

  // E4M3 by E4M3, K = 32; byte 0 of scales.
  __device__ static void multiply_e4m3(float (&sum)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2], uint32_t a_scales,
                                       uint32_t b_scales) {
#ifdef MICROMIX_BLOCK_SCALED_MMA
    asm("mma.sync.aligned.kind::mxf8f6f4.block_scale.scale_vec::1X.m16n8k32.row.col.f32.e4m3.e4m3"
        ".f32.ue8m0 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, "
        "{%10}, {0, 0}, {%11}, {0, 0};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(a_scales),
          "r"(b_scales));
#else
    __trap();
#endif
  }
};

// Products and their sums of 32 are exact in FP64 (E4M3 products are multiples of 2^-18 below
// 2^18), and so are those times their scales; they and SUM add in FP64 and round to FP32 once.
struct EmulatedMma {
  __device__ static void multiply_e2m1(float (&sum)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2], uint32_t a_scales,
                                       uint32_t b_scales) {
    add_products<8>(sum, a, b, a_scales, b_scales);
  }
  __device__ static void multiply_e4m3(float (&sum)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2], uint32_t a_scales,
                                       uint32_t b_scales) {
    add_products<4>(sum, a, b, a_scales, b_scales);
  }

 private:
  // Of the format with CODES codes a register. An element's bits stand in the fields of an FP32
  // number, subnormal ones too, which the difference of biases makes the element.
  template <int codes>
  __device__ static double element(uint32_t word, int index) {
    constexpr int kBits = 32 / codes;
    const uint32_t code = word >> (kBits * index) & ((1u << kBits) - 1);
    const uint32_t magnitude = code & ((1u << (kBits - 1)) - 1);
    float value;
    if constexpr (codes == 8) {
      value = __uint_as_float(magnitude << 22) * 0x1p126f;
    } else {
      value = magnitude == 0x7F ? __int_as_float(0x7FC00000)
                                : __uint_as_float(magnitude << 20) * 0x1p120f;
    }
    return static_cast<double>(code >> (kBits - 1) != 0 ? -value : value);
  }

  __device__ static double scale(uint32_t scales, int index) {
    const uint32_t byte = scales >> 8 * index & 0xFF;
    return byte == mx::kScaleNan
               ? static_cast<double>(__int_as_float(0x7FC00000))
               : exp2(static_cast<double>(static_cast<int>(byte)) - mx::kScaleBias);
  }

  template <int codes>
  __device__ static void add_products(float (&sum)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2], uint32_t a_scales,
                                      uint32_t b_scales) {
    const float4 added =
        added_products<codes>({sum[0], sum[1], sum[2], sum[3]}, {a[0], a[1], a[2], a[3]},
                              {b[0], b[1]}, a_scales, b_scales);
    sum[0] = added.x, sum[1] = added.y, sum[2] = added.z, sum[3] = added.w;
  }

  // Called by all of a warp. Not inlined: kernels hold dozens of calls.
  template <int codes>
  __device__ __noinline__ static float4 added_products(float4 sum, uint4 a_registers,
                                                       uint2 b_registers, uint32_t a_scales,
                                                       uint32_t b_scales) {
    constexpr int kHalf = 4 * codes;  // of K
    constexpr int kBlocks = mma_k(codes) / 32;
    const uint32_t a[4] = {a_registers.x, a_registers.y, a_registers.z, a_registers.w};
    const uint32_t b[2] = {b_registers.x, b_registers.y};
    float sums[4] = {sum.x, sum.y, sum.z, sum.w};
    const int lane = threadIdx.x % 32;
    double blocks[4][kBlocks] = {};
    for (int source = 0; source < 4; ++source) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        // Of this lane's two rows and two columns, what the quad's lane SOURCE holds.
        uint32_t rows[2], columns[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          rows[i] = __shfl_sync(~0u, a[2 * half + i], lane / 4 * 4 + source);
          columns[i] = __shfl_sync(~0u, b[half], c_column(lane, i) * 4 + source);
        }
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          double& block = blocks[d][half * kHalf / 32];
          for (int index = 0; index < codes; ++index) {
            block += element<codes>(rows[d / 2], index) * element<codes>(columns[d % 2], index);
          }
        }
      }
    }
#pragma unroll
    for (int d = 0; d < 4; ++d) {
      const uint32_t of_row = __shfl_sync(~0u, a_scales, a_scale_lane(c_row(lane, d)));
      const uint32_t of_column = __shfl_sync(~0u, b_scales, b_scale_lane(c_column(lane, d)));
      double total = static_cast<double>(sums[d]);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        total += blocks[d][block] * scale(of_row, block) * scale(of_column, block);
      }
      sums[d] = static_cast<float>(total);
    }
    return {sums[0], sums[1], sums[2], sums[3]};
  }
};

}  // namespace micromix::kernels::cuda::block_scaled
