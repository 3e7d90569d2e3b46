#include "tests/cuda/block_scaled_mma.h"

#include "micromix/kernels/cuda/block_scaled/mma.cuh"
#include "micromix/kernels/cuda/device.h"

namespace micromix::testing {
namespace {

using kernels::cuda::check;
using kernels::cuda::DeviceArray;
using kernels::cuda::block_scaled::EmulatedMma;
using kernels::cuda::block_scaled::NativeMma;

__device__ void add_s4(int (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ void add_s8(int (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ void add_e4m3(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 890
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

template <Instruction instruction>
__device__ void add(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    uint32_t a_scales, uint32_t b_scales) {
  if constexpr (instruction == Instruction::kEmulatedE2m1) {
    EmulatedMma::multiply_e2m1(sum, a, b, a_scales, b_scales);
  } else if constexpr (instruction == Instruction::kEmulatedE4m3) {
    EmulatedMma::multiply_e4m3(sum, a, b, a_scales, b_scales);
  } else if constexpr (instruction == Instruction::kNativeE2m1) {
    NativeMma::multiply_e2m1(sum, a, b, a_scales, b_scales);
  } else if constexpr (instruction == Instruction::kNativeE4m3) {
    NativeMma::multiply_e4m3(sum, a, b, a_scales, b_scales);
  } else if constexpr (instruction == Instruction::kE4m3) {
    add_e4m3(sum, a, b);
  } else {
    int integers[4];
    for (int i = 0; i < 4; ++i) integers[i] = static_cast<int>(sum[i]);
    if constexpr (instruction == Instruction::kS4) {
      add_s4(integers, a, b);
    } else {
      add_s8(integers, a, b);
    }
    for (int i = 0; i < 4; ++i) sum[i] = static_cast<float>(integers[i]);
  }
}

// A warp a thread block.
template <Instruction instruction>
__global__ void multiply_warps(const WarpRegisters* warps, WarpSums* sums) {
  const WarpRegisters& warp = warps[blockIdx.x];
  const int lane = threadIdx.x;
  uint32_t a[4], b[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) a[i] = warp.a[lane][i];
  for (int i = 0; i < 2; ++i) b[i] = warp.b[lane][i];
  for (int i = 0; i < 4; ++i) sum[i] = warp.sum[lane][i];
  add<instruction>(sum, a, b, warp.a_scales[lane], warp.b_scales[lane]);
  float* const to = reinterpret_cast<float*>(sums + blockIdx.x) + lane * 4;
  for (int i = 0; i < 4; ++i) to[i] = sum[i];
}

struct Features {
  bool native;
  bool e4m3;
};

__global__ void find_features(Features* features) {
#ifdef MICROMIX_BLOCK_SCALED_MMA
  features->native = true;
#endif
#if __CUDA_ARCH__ >= 890
  features->e4m3 = true;
#endif
}

Features features() {
  DeviceArray<Features> found(1);
  check(cudaMemset(found.data(), 0, sizeof(Features)), "cudaMemset");
  find_features<<<1, 1>>>(found.data());
  check(cudaGetLastError(), "find_features");
  return found.to_host()[0];
}

template <Instruction instruction>
void launch(const DeviceArray<WarpRegisters>& warps, DeviceArray<WarpSums>& sums) {
  multiply_warps<instruction>
      <<<static_cast<unsigned>(warps.size()), kLanes>>>(warps.data(), sums.data());
}

}  // namespace

bool available(Instruction instruction) {
  switch (instruction) {
    case Instruction::kNativeE2m1:
    case Instruction::kNativeE4m3:
      return features().native;
    case Instruction::kE4m3:
      return features().e4m3;
    default:
      return true;
  }
}

std::vector<WarpSums> multiply(Instruction instruction, std::span<const WarpRegisters> warps) {
  const DeviceArray<WarpRegisters> operands(warps);
  DeviceArray<WarpSums> sums(operands.size());
  switch (instruction) {
    case Instruction::kEmulatedE2m1:
      launch<Instruction::kEmulatedE2m1>(operands, sums);
      break;
    case Instruction::kEmulatedE4m3:
      launch<Instruction::kEmulatedE4m3>(operands, sums);
      break;
    case Instruction::kNativeE2m1:
      launch<Instruction::kNativeE2m1>(operands, sums);
      break;
    case Instruction::kNativeE4m3:
      launch<Instruction::kNativeE4m3>(operands, sums);
      break;
    case Instruction::kS4:
      launch<Instruction::kS4>(operands, sums);
      break;
    case Instruction::kS8:
      launch<Instruction::kS8>(operands, sums);
      break;
    case Instruction::kE4m3:
      launch<Instruction::kE4m3>(operands, sums);
      break;
  }
  check(cudaGetLastError(), "multiply_warps");
  return sums.to_host();
}

}  // namespace micromix::testing
