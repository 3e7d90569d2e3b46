// What rows are made of, as kernels read it: one or two consecutive rows at a time, eight
// consecutive channels of one row a step.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/quantize.h"

namespace micromix::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kStep = 8;  // channels
inline constexpr int kMostThreads = 1024;
inline constexpr int kMostWarps = kMostThreads / kWarp;
// However many threads there are, this many sum a row's squares, so that the sum is the same beside
// any other rows.
inline constexpr int kSummingThreads = 512;

// The rows a thread block works on.
struct RowPair {
  int64_t first;
  int count;  // 1 or 2
};

// BF16 bits of LOW and HIGH in one word, each rounded to nearest even.
__device__ inline uint32_t to_bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline float low_float(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ inline float high_float(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}

// Eight values from ROW[8 STEP] on, zeros beyond K. Rows are 16-byte aligned where K is a multiple
// of eight. Read once, so they should not drive permutations out of the caches.
__device__ inline uint4 load_step(const __nv_bfloat16* row, int32_t step, int32_t k) {
  const __nv_bfloat16* from = row + kStep * step;
  if (k % kStep == 0) return __ldcs(reinterpret_cast<const uint4*>(from));
  uint32_t words[kStep / 2] = {};
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    if (kStep * step + i < k) {
      words[i / 2] |= static_cast<uint32_t>(__bfloat16_as_ushort(from[i])) << (i % 2 * 16);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

__device__ inline void store_step(__nv_bfloat16* row, int32_t step, int32_t k,
                                  const uint4& values) {
  __nv_bfloat16* to = row + kStep * step;
  if (k % kStep == 0) {
    *reinterpret_cast<uint4*>(to) = values;
    return;
  }
  const uint32_t words[kStep / 2] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    if (kStep * step + i < k) {
      to[i] = __ushort_as_bfloat16(static_cast<unsigned short>(words[i / 2] >> (i % 2 * 16)));
    }
  }
}

__device__ inline void load_step(const float* row, int32_t step, int32_t k,
                                 float (&values)[kStep]) {
  const float* from = row + kStep * step;
  if (k % kStep == 0) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < kStep; ++i) values[i] = kStep * step + i < k ? from[i] : 0.0f;
}

__device__ inline void store_step(float* row, int32_t step, int32_t k,
                                  const float (&values)[kStep]) {
  float* to = row + kStep * step;
  if (k % kStep == 0) {
    reinterpret_cast<float4*>(to)[0] = {values[0], values[1], values[2], values[3]};
    reinterpret_cast<float4*>(to)[1] = {values[4], values[5], values[6], values[7]};
    return;
  }
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    if (kStep * step + i < k) to[i] = values[i];
  }
}

__device__ inline void to_floats(const uint4& pairs, float (&values)[kStep]) {
  const uint32_t words[kStep / 2] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    values[i] = i % 2 == 0 ? low_float(words[i / 2]) : high_float(words[i / 2]);
  }
}

// Rounded once to BF16.
__device__ inline uint4 to_bf16(const float (&values)[kStep]) {
  return {to_bf16_pair(values[0], values[1]), to_bf16_pair(values[2], values[3]),
          to_bf16_pair(values[4], values[5]), to_bf16_pair(values[6], values[7])};
}

// Asks for memory that will be read soon: BYTES from POINTER on, both multiples of 16. One thread
// asks for all.
__device__ inline void prefetch(const void* pointer, uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(pointer)),
      "r"(bytes)
      : "memory");
#endif
}
template <typename T>
__device__ void prefetch_rows(const T* matrix, const RowPair& rows, int32_t k) {
  if (k % kStep != 0) return;
  prefetch(matrix + rows.first * k, static_cast<uint32_t>(rows.count * k * sizeof(T)));
}

// A source offers
//   prefetch_constants(k)     what no kernel writes; one thread calls it
//   prefetch_inputs(rows, k)  the rows' inputs; one thread calls it
//   begin(rows, k)            what the rows need as a whole; all threads call it
//   values(row, r, step, k, begun)  eight values of ROW, which is rows.first + r
struct PlainSource {
  struct Begun {};

  PlainRows rows;

  __device__ void prefetch_constants(int32_t) const {}
  __device__ void prefetch_inputs(const RowPair& pair, int32_t k) const {
    prefetch_rows(rows.x, pair, k);
  }
  __device__ Begun begin(const RowPair&, int32_t) const { return {}; }
  __device__ uint4 values(int64_t row, int, int32_t step, int32_t k, const Begun&) const {
    return load_step(rows.x + row * k, step, k);
  }
};

struct SwigluSource {
  struct Begun {};

  SwigluRows rows;

  __device__ void prefetch_constants(int32_t) const {}
  __device__ void prefetch_inputs(const RowPair& pair, int32_t k) const {
    prefetch_rows(rows.gate, pair, k);
    prefetch_rows(rows.up, pair, k);
  }
  __device__ Begun begin(const RowPair&, int32_t) const { return {}; }
  __device__ uint4 values(int64_t row, int, int32_t step, int32_t k, const Begun&) const {
    const uint4 gate_pairs = load_step(rows.gate + row * k, step, k);
    const uint4 up_pairs = load_step(rows.up + row * k, step, k);
    float gate[kStep], up[kStep];
    to_floats(gate_pairs, gate);
    to_floats(up_pairs, up);
#pragma unroll
    for (int i = 0; i < kStep; ++i) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    return to_bf16(gate);
  }
};

// The sums of VALUES over the thread block: butterflies in each warp, then the warps in order,
// where warps that only have zeros change nothing. All threads get them.
__device__ inline float2 block_sums(float2 values) {
  __shared__ float2 partials[kMostWarps];
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    values.x += __shfl_xor_sync(~0u, values.x, distance);
    values.y += __shfl_xor_sync(~0u, values.y, distance);
  }
  if (threadIdx.x % kWarp == 0) partials[threadIdx.x / kWarp] = values;
  __syncthreads();
  float2 sums = partials[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
    sums.x += partials[warp].x;
    sums.y += partials[warp].y;
  }
  return sums;
}

struct RmsNormSource {
  struct Begun {
    float2 factors;  // 1 / sqrt(mean of squares + eps), a row each
  };

  RmsNormRows rows;

  __device__ void prefetch_constants(int32_t k) const {
    if (k % kStep == 0) prefetch(rows.gain, static_cast<uint32_t>(k * sizeof(float)));
  }
  __device__ void prefetch_inputs(const RowPair& pair, int32_t k) const {
    prefetch_rows(rows.residual, pair, k);
    if (rows.addend != nullptr) prefetch_rows(rows.addend, pair, k);
  }

  // The caller must synchronize before the next call. The longest chain of FP32 additions is a
  // thread's ceil(k / (8 * 512)) steps of 8, then 5 in its warp and 15 between warps.
  __device__ Begun begin(const RowPair& pair, int32_t k) const {
    float2 squares = {0.0f, 0.0f};
    const int32_t steps = threadIdx.x < kSummingThreads ? (k + kStep - 1) / kStep : 0;
    const int32_t stride = min(static_cast<int32_t>(blockDim.x), kSummingThreads);
    for (int32_t step = threadIdx.x; step < steps; step += stride) {
      squares.x = add_squares(squares.x, pair.first, step, k);
      if (pair.count == 2) squares.y = add_squares(squares.y, pair.first + 1, step, k);
    }
    const float2 sums = block_sums(squares);
    return {{factor(sums.x, k), factor(sums.y, k)}};
  }

  // Reads again what was read or written in begin(), out of a cache.
  __device__ uint4 values(int64_t row, int r, int32_t step, int32_t k, const Begun& begun) const {
    float x[kStep], gain[kStep];
    load_step(rows.residual + row * k, step, k, x);
    load_step(rows.gain, step, k, gain);
    const float scale = r == 0 ? begun.factors.x : begun.factors.y;
#pragma unroll
    for (int i = 0; i < kStep; ++i) x[i] = x[i] * scale * gain[i];
    return to_bf16(x);
  }

 private:
  __device__ float factor(float sum, int32_t k) const {
    return 1.0f / sqrtf(sum / static_cast<float>(k) + rows.eps);
  }

  // Adds the addend to eight values of the residual, and their squares to SUM.
  __device__ float add_squares(float sum, int64_t row, int32_t step, int32_t k) const {
    float x[kStep];
    load_step(rows.residual + row * k, step, k, x);
    if (rows.addend != nullptr) {
      float addend[kStep];
      to_floats(load_step(rows.addend + row * k, step, k), addend);
#pragma unroll
      for (int i = 0; i < kStep; ++i) x[i] += addend[i];
      store_step(rows.residual + row * k, step, k, x);
    }
#pragma unroll
    for (int i = 0; i < kStep; ++i) sum += x[i] * x[i];
    return sum;
  }
};

}  // namespace micromix::kernels::cuda
