// What rows are made of, as kernels read it: a few consecutive rows at a time, eight consecutive
// channels of each a step.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/quantize.h"

namespace micromix::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kStep = 8;  // channels

// The rows a thread block works on: up to as many as it takes at once.
struct RowGroup {
  int64_t first;
  int count;
  // Row R, or the last one: what is read in place of rows that there are not.
  __device__ int32_t present(int r) const { return min(r, count - 1); }
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
// of eight, which it is unless ANY_K. Read once, so they should not drive permutations out of the
// caches.
template <bool kAnyK>
__device__ uint4 load_step(const __nv_bfloat16* row, int32_t step, int32_t k) {
  const __nv_bfloat16* from = row + kStep * step;
  if constexpr (kAnyK) {
    if (k % kStep != 0) {
      uint32_t words[kStep / 2] = {};
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        if (kStep * step + i < k) {
          words[i / 2] |= static_cast<uint32_t>(__bfloat16_as_ushort(from[i])) << (i % 2 * 16);
        }
      }
      return {words[0], words[1], words[2], words[3]};
    }
  }
  return __ldcs(reinterpret_cast<const uint4*>(from));
}

template <bool kAnyK>
__device__ void store_step(__nv_bfloat16* row, int32_t step, int32_t k, const uint4& values) {
  __nv_bfloat16* to = row + kStep * step;
  if constexpr (kAnyK) {
    if (k % kStep != 0) {
      const uint32_t words[kStep / 2] = {values.x, values.y, values.z, values.w};
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        if (kStep * step + i < k) {
          to[i] = __ushort_as_bfloat16(static_cast<unsigned short>(words[i / 2] >> (i % 2 * 16)));
        }
      }
      return;
    }
  }
  *reinterpret_cast<uint4*>(to) = values;
}

template <bool kAnyK>
__device__ void load_step(const float* row, int32_t step, int32_t k, float (&values)[kStep]) {
  const float* from = row + kStep * step;
  if constexpr (kAnyK) {
    if (k % kStep != 0) {
#pragma unroll
      for (int i = 0; i < kStep; ++i) values[i] = kStep * step + i < k ? from[i] : 0.0f;
      return;
    }
  }
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

template <bool kAnyK>
__device__ void store_step(float* row, int32_t step, int32_t k, const float (&values)[kStep]) {
  float* to = row + kStep * step;
  if constexpr (kAnyK) {
    if (k % kStep != 0) {
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        if (kStep * step + i < k) to[i] = values[i];
      }
      return;
    }
  }
  reinterpret_cast<float4*>(to)[0] = {values[0], values[1], values[2], values[3]};
  reinterpret_cast<float4*>(to)[1] = {values[4], values[5], values[6], values[7]};
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
__device__ void prefetch_rows(const T* matrix, const RowGroup& rows, int32_t k) {
  if (k % kStep != 0) return;
  prefetch(matrix + rows.first * k, static_cast<uint32_t>(rows.count * k * sizeof(T)));
}

// A source offers, for ROWS at once, single ones with any K
//   kMostRows               how many rows at once it has registers for
//   prefetch_constants(k)   what no kernel writes; one thread calls it
//   prefetch_inputs(rows, k)  the rows' inputs; one thread calls it
//   Step<ROWS>              eight channels of the rows, in registers
//   read(rows, step, k, values)   the first time
//   reread(rows, step, k, values) of steps that begin() has read
//   begin(rows, k, ahead)   what the rows need as a whole; all threads call it, each with what it
//                           read of its first steps, zeros where it has none
//   finish(values, step, k, begun, out)  as BF16
struct PlainSource {
  static constexpr int kMostRows = 4;
  template <int kRows>
  struct Step {
    uint4 x[kRows];
  };
  template <int kRows>
  struct Begun {};

  PlainRows rows;

  __device__ void prefetch_constants(int32_t) const {}
  __device__ void prefetch_inputs(const RowGroup& group, int32_t k) const {
    prefetch_rows(rows.x, group, k);
  }
  template <int kRows>
  __device__ void read(const RowGroup& group, int32_t step, int32_t k, Step<kRows>& values) const {
    const __nv_bfloat16* x = rows.x + group.first * k;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      values.x[r] = load_step<kRows == 1>(x + group.present(r) * k, step, k);
    }
  }
  template <int kRows>
  __device__ void reread(const RowGroup& group, int32_t step, int32_t k,
                         Step<kRows>& values) const {
    read(group, step, k, values);
  }
  template <int kRows, int kAhead>
  __device__ Begun<kRows> begin(const RowGroup&, int32_t, const Step<kRows> (&)[kAhead]) const {
    return {};
  }
  template <int kRows>
  __device__ void finish(const Step<kRows>& values, int32_t, int32_t, const Begun<kRows>&,
                         uint4 (&out)[kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) out[r] = values.x[r];
  }
};

// gate / (1 + e^-gate) without slow paths. With u = 2^-24: the exponent's product and its constant
// are off by 1.25 u relatively, so e^-gate is by 1.25 |gate| u, and by 4 u more as ex2.approx is;
// the sum rounds by u, rcp.approx is off by 2 u and the product rounds by u: (1.25 |gate| + 8) u.
// Where 1 + e^-gate is above 2^126, at gates below -87, its inverse and the result are zero instead
// of at most 89 * 2^-126. As x / (1 + e^-x) does, gates of infinity give infinity, of -infinity
// NaN.
__device__ inline float silu(float gate) {
  constexpr float kLog2E = 1.44269504f;
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-kLog2E * gate));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return gate * inverse;
}

struct SwigluSource {
  static constexpr int kMostRows = 4;
  template <int kRows>
  struct Step {
    uint4 gate[kRows], up[kRows];
  };
  template <int kRows>
  struct Begun {};

  SwigluRows rows;

  __device__ void prefetch_constants(int32_t) const {}
  __device__ void prefetch_inputs(const RowGroup& group, int32_t k) const {
    prefetch_rows(rows.gate, group, k);
    prefetch_rows(rows.up, group, k);
  }
  template <int kRows>
  __device__ void read(const RowGroup& group, int32_t step, int32_t k, Step<kRows>& values) const {
    const __nv_bfloat16* gate = rows.gate + group.first * k;
    const __nv_bfloat16* up = rows.up + group.first * k;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      values.gate[r] = load_step<kRows == 1>(gate + group.present(r) * k, step, k);
      values.up[r] = load_step<kRows == 1>(up + group.present(r) * k, step, k);
    }
  }
  template <int kRows>
  __device__ void reread(const RowGroup& group, int32_t step, int32_t k,
                         Step<kRows>& values) const {
    read(group, step, k, values);
  }
  template <int kRows, int kAhead>
  __device__ Begun<kRows> begin(const RowGroup&, int32_t, const Step<kRows> (&)[kAhead]) const {
    return {};
  }
  template <int kRows>
  __device__ void finish(const Step<kRows>& values, int32_t, int32_t, const Begun<kRows>&,
                         uint4 (&out)[kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float gate[kStep], up[kStep];
      to_floats(values.gate[r], gate);
      to_floats(values.up[r], up);
#pragma unroll
      for (int i = 0; i < kStep; ++i) gate[i] = silu(gate[i]) * up[i];
      out[r] = to_bf16(gate);
    }
  }
};

// The sum over a warp, the same in all lanes.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(~0u, value, distance);
  }
  return value;
}

struct RmsNormSource {
  static constexpr int kMostRows = 2;
  template <int kRows>
  struct Step {
    float x[kRows][kStep];
  };
  template <int kRows>
  struct Begun {
    float factors[kRows];  // 1 / sqrt(mean of squares + eps)
  };

  RmsNormRows rows;

  __device__ void prefetch_constants(int32_t k) const {
    if (k % kStep == 0) prefetch(rows.gain, static_cast<uint32_t>(k * sizeof(float)));
  }
  __device__ void prefetch_inputs(const RowGroup& group, int32_t k) const {
    prefetch_rows(rows.residual, group, k);
    if (rows.addend != nullptr) prefetch_rows(rows.addend, group, k);
  }

  template <int kRows>
  __device__ void read(const RowGroup& group, int32_t step, int32_t k, Step<kRows>& values) const {
    read_sums(group, step, k, values.x);
  }
  template <int kRows>
  __device__ void reread(const RowGroup& group, int32_t step, int32_t k,
                         Step<kRows>& values) const {
    read_residual(group, step, k, values.x);
  }

  // The caller must synchronize before the next call. Sums are the same however many threads and
  // rows there are: of the eight squares of a step, of the steps of 32 lanes, of every 32nd such
  // sum, of 32 lanes again. The longest chain is 8 + 5 + ceil(k / 8192) + 5 FP32 additions.
  template <int kRows, int kAhead>
  __device__ Begun<kRows> begin(const RowGroup& group, int32_t k,
                                const Step<kRows> (&ahead)[kAhead]) const {
    __shared__ float partials[kRows][kMostPartials];
    const int32_t steps = (k + kStep - 1) / kStep;
    int32_t step = threadIdx.x;
#pragma unroll
    for (int i = 0; i < kAhead; ++i, step += blockDim.x) {
      if (first_in_warp(step) < steps) store_squares(ahead[i].x, step, partials);
    }
    for (; first_in_warp(step) < steps; step += blockDim.x) {
      float x[kRows][kStep] = {};
      if (step < steps) read_sums(group, step, k, x);
      store_squares(x, step, partials);
    }
    __syncthreads();
    Begun<kRows> begun;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.0f;
      for (int32_t i = threadIdx.x % kWarp; kWarp * i < steps; i += kWarp) sum += partials[r][i];
      begun.factors[r] = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(k) + rows.eps);
    }
    return begun;
  }

  template <int kRows>
  __device__ void finish(const Step<kRows>& values, int32_t step, int32_t k,
                         const Begun<kRows>& begun, uint4 (&out)[kRows]) const {
    float gain[kStep];
    load_step<kRows == 1>(rows.gain, step, k, gain);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float x[kStep];
#pragma unroll
      for (int i = 0; i < kStep; ++i) x[i] = values.x[r][i] * begun.factors[r] * gain[i];
      out[r] = to_bf16(x);
    }
  }

 private:
  static constexpr int kMostPartials = kMostChannels / (kStep * kWarp);

  __device__ static int32_t first_in_warp(int32_t step) {
    return step / kWarp * kWarp;
  }

  template <int kRows>
  __device__ static void store_squares(const float (&x)[kRows][kStep], int32_t step,
                                       float (&partials)[kRows][kMostPartials]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kStep; ++i) sum += x[r][i] * x[r][i];
      sum = warp_sum(sum);
      if (step % kWarp == 0) partials[r][step / kWarp] = sum;
    }
  }

  template <int kRows>
  __device__ void read_residual(const RowGroup& group, int32_t step, int32_t k,
                                float (&x)[kRows][kStep]) const {
    const float* residual = rows.residual + group.first * k;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      load_step<kRows == 1>(residual + group.present(r) * k, step, k, x[r]);
    }
  }

  // The residual with the addend, written back.
  template <int kRows>
  __device__ void read_sums(const RowGroup& group, int32_t step, int32_t k,
                            float (&x)[kRows][kStep]) const {
    read_residual(group, step, k, x);
    if (rows.addend == nullptr) return;
    const __nv_bfloat16* addends = rows.addend + group.first * k;
    uint4 pairs[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      pairs[r] = load_step<kRows == 1>(addends + group.present(r) * k, step, k);
    }
    float* residual = rows.residual + group.first * k;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float addend[kStep];
      to_floats(pairs[r], addend);
#pragma unroll
      for (int i = 0; i < kStep; ++i) x[r][i] += addend[i];
      if (r < group.count) store_step<kRows == 1>(residual + r * k, step, k, x[r]);
    }
  }
};

}  // namespace micromix::kernels::cuda
