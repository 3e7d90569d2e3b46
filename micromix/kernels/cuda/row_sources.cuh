// What rows are made of, as kernels read it: eight channels a step, most steps from copies that
// were asked for while the row before was worked on. A thread waits for and reads only what it
// copied, so no barrier stands between.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/peers.cuh"
#include "micromix/kernels/cuda/quantize.h"

namespace micromix::kernels::cuda {

inline constexpr int kStep = 8;  // channels
inline constexpr int kQuad = 4;
inline constexpr int kWarpChannels = kStep * kWarp;  // of a step of all lanes

// The steps of a thread: FIRST, then every STRIDE-th one before END. Both are multiples of 32 but
// for the lane, so that a warp's lanes stay together; steps may lie beyond a row's end.
struct Steps {
  int32_t first, stride, end;
};

// Copies of COUNT channels of a row from FIRST on: arrays of a source's inputs after each other.
// The count is a multiple of eight. kAll: they are all of the row's channels.
template <bool kAll>
struct CopiedRow {
  char* memory;
  int32_t first, count;

  // Of a channel of the row.
  __device__ bool has(int32_t channel) const { return kAll || channel - first < count; }
  // Where CHANNEL is in the array that BYTES of each channel stand before.
  template <typename T>
  __device__ T* at(int bytes, int32_t channel) const {
    return reinterpret_cast<T*>(memory + bytes * count) + (channel - first);
  }
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

// Whether every row begins at a multiple of 16 bytes and no step crosses its end.
__device__ inline bool whole_steps(int32_t k) {
  return k % kStep == 0;
}

// Values from ROW[CHANNEL] on, zeros beyond K. Inputs are read once, so they should not drive
// permutations out of the caches.
__device__ inline uint32_t load_bf16(const __nv_bfloat16* row, int32_t channel, int32_t k) {
  return channel < k ? __bfloat16_as_ushort(row[channel]) : 0u;
}
__device__ inline uint2 load_quad(const __nv_bfloat16* row, int32_t channel, int32_t k) {
  if (whole_steps(k)) {
    return channel < k ? __ldcs(reinterpret_cast<const uint2*>(row + channel)) : uint2{};
  }
  return {load_bf16(row, channel, k) | load_bf16(row, channel + 1, k) << 16,
          load_bf16(row, channel + 2, k) | load_bf16(row, channel + 3, k) << 16};
}
__device__ inline uint4 load_step(const __nv_bfloat16* row, int32_t channel, int32_t k) {
  if (whole_steps(k)) {
    return channel < k ? __ldcs(reinterpret_cast<const uint4*>(row + channel)) : uint4{};
  }
  const uint2 low = load_quad(row, channel, k), high = load_quad(row, channel + kQuad, k);
  return {low.x, low.y, high.x, high.y};
}
__device__ inline float4 load_quad(const float* row, int32_t channel, int32_t k) {
  if (whole_steps(k)) {
    return channel < k ? *reinterpret_cast<const float4*>(row + channel) : float4{};
  }
  const auto at = [=](int32_t i) { return i < k ? row[i] : 0.0f; };
  return {at(channel), at(channel + 1), at(channel + 2), at(channel + 3)};
}

// The opposite: nothing beyond K.
__device__ inline void store_quad(float* row, int32_t channel, int32_t k, const float4& values) {
  if (whole_steps(k)) {
    if (channel < k) *reinterpret_cast<float4*>(row + channel) = values;
    return;
  }
  if (channel < k) row[channel] = values.x;
  if (channel + 1 < k) row[channel + 1] = values.y;
  if (channel + 2 < k) row[channel + 2] = values.z;
  if (channel + 3 < k) row[channel + 3] = values.w;
}
__device__ inline void store_bf16(__nv_bfloat16* row, int32_t channel, int32_t k, uint32_t bits) {
  if (channel < k) row[channel] = __ushort_as_bfloat16(static_cast<unsigned short>(bits));
}
__device__ inline void store_quad(__nv_bfloat16* row, int32_t channel, int32_t k,
                                  const uint2& values) {
  if (whole_steps(k)) {
    if (channel < k) *reinterpret_cast<uint2*>(row + channel) = values;
    return;
  }
  store_bf16(row, channel, k, values.x & 0xFFFFu);
  store_bf16(row, channel + 1, k, values.x >> 16);
  store_bf16(row, channel + 2, k, values.y & 0xFFFFu);
  store_bf16(row, channel + 3, k, values.y >> 16);
}

__device__ inline void to_floats(const uint4& pairs, float (&values)[kStep]) {
  const uint32_t words[kStep / 2] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    values[i] = i % 2 == 0 ? low_float(words[i / 2]) : high_float(words[i / 2]);
  }
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

// A source offers, for a row of K channels,
//   kCopiedBytes            of inputs a channel, in a CopiedRow
//   kNormalizes             whether begin() synchronizes
//   first_channel(step), second_channel(step)  of a step's two quads
//   prefetch_constants(k)   what no kernel writes; one thread calls it
//   copy(row, k, step, to)  begins to copy a step's inputs
//   begin(row, k, steps, copied, partials, peers)
//                           what the row needs as a whole; all threads call it
//   constants(step, k)      what a step needs that no kernel writes
//   read(row, k, step, copied)
//                           a step's inputs, after begin()
//   finish(values, constants, begun)
//                           as BF16, a quad in two words

// What sources have in common whose channels do not depend on each other.
struct ChannelwiseSource {
  static constexpr bool kNormalizes = false;
  struct Begun {};
  struct Constants {};

  __device__ static int32_t first_channel(int32_t step) { return kStep * step; }
  __device__ static int32_t second_channel(int32_t step) { return kStep * step + kQuad; }
  __device__ void prefetch_constants(int32_t) const {}
  __device__ Constants constants(int32_t, int32_t) const { return {}; }
  template <typename Copied, typename Peers>
  __device__ Begun begin(int32_t, int32_t, const Steps&, const Copied&, float*,
                         const Peers&) const {
    return {};
  }

 protected:
  // A step of a matrix; BYTES of each channel stand before it among the copies.
  template <typename Copied>
  __device__ static void copy_step(const __nv_bfloat16* matrix, int32_t row, int32_t k,
                                   int32_t step, const Copied& to, int bytes) {
    const int32_t channel = first_channel(step);
    copy_async(to.template at<__nv_bfloat16>(bytes, channel), matrix + int64_t{row} * k + channel);
  }
  template <typename Copied>
  __device__ static uint4 read_step(const __nv_bfloat16* matrix, int32_t row, int32_t k,
                                    int32_t step, const Copied& copied, int bytes) {
    const int32_t channel = first_channel(step);
    if (channel >= k) return {};
    if (copied.has(channel)) {
      return *reinterpret_cast<const uint4*>(copied.template at<__nv_bfloat16>(bytes, channel));
    }
    return load_step(matrix + int64_t{row} * k, channel, k);
  }
};

struct PlainSource : ChannelwiseSource {
  static constexpr int kCopiedBytes = 2;
  using Values = uint4;

  PlainRows rows;

  template <typename Copied>
  __device__ void copy(int32_t row, int32_t k, int32_t step, const Copied& to) const {
    copy_step(rows.x, row, k, step, to, 0);
  }
  template <typename Copied>
  __device__ Values read(int32_t row, int32_t k, int32_t step, const Copied& copied) const {
    return read_step(rows.x, row, k, step, copied, 0);
  }
  __device__ uint4 finish(const Values& x, const Constants&, const Begun&) const { return x; }
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

struct SwigluSource : ChannelwiseSource {
  static constexpr int kCopiedBytes = 4;
  struct Values {
    uint4 gate, up;
  };

  SwigluRows rows;

  template <typename Copied>
  __device__ void copy(int32_t row, int32_t k, int32_t step, const Copied& to) const {
    copy_step(rows.gate, row, k, step, to, 0);
    copy_step(rows.up, row, k, step, to, 2);
  }
  template <typename Copied>
  __device__ Values read(int32_t row, int32_t k, int32_t step, const Copied& copied) const {
    return {read_step(rows.gate, row, k, step, copied, 0),
            read_step(rows.up, row, k, step, copied, 2)};
  }
  __device__ uint4 finish(const Values& values, const Constants&, const Begun&) const {
    float x[kStep], up[kStep];
    to_floats(values.gate, x);
    to_floats(values.up, up);
#pragma unroll
    for (int i = 0; i < kStep; ++i) x[i] = silu(x[i]) * up[i];
    return {to_bf16_pair(x[0], x[1]), to_bf16_pair(x[2], x[3]), to_bf16_pair(x[4], x[5]),
            to_bf16_pair(x[6], x[7])};
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

// A step's quads lie 128 channels apart, so that lanes' 16 bytes of FP32 are consecutive. Of a row
// the copies become the sums with the addend, which need no second read.
struct RmsNormSource {
  static constexpr int kCopiedBytes = 6;  // residual, addend
  static constexpr bool kNormalizes = true;
  struct Values {
    float4 low, high;
  };
  using Constants = Values;  // gain
  struct Begun {
    float factor;  // 1 / sqrt(mean of squares + eps)
  };

  RmsNormRows rows;

  __device__ static int32_t first_channel(int32_t step) {
    return step / kWarp * kWarpChannels + step % kWarp * kQuad;
  }
  __device__ static int32_t second_channel(int32_t step) {
    return first_channel(step) + kWarpChannels / 2;
  }

  __device__ void prefetch_constants(int32_t k) const {
    if (whole_steps(k)) prefetch(rows.gain, static_cast<uint32_t>(k * sizeof(float)));
  }
  __device__ Constants constants(int32_t step, int32_t k) const {
    return {load_quad(rows.gain, first_channel(step), k),
            load_quad(rows.gain, second_channel(step), k)};
  }

  template <typename Copied>
  __device__ void copy(int32_t row, int32_t k, int32_t step, const Copied& to) const {
    copy_quad(int64_t{row} * k, first_channel(step), to);
    if (second_channel(step) < k) copy_quad(int64_t{row} * k, second_channel(step), to);
  }

  // Sums are the same however many threads, blocks and rows there are: of the eight squares of a
  // step, of the steps of 32 lanes, of every 32nd such sum, of 32 lanes again. The longest chain is
  // 8 + 5 + ceil(k / 8192) + 5 FP32 additions.
  template <typename Copied, typename Peers>
  __device__ Begun begin(int32_t row, int32_t k, const Steps& steps, const Copied& copied,
                         float* partials, const Peers& peers) const {
    for (int32_t step = steps.first; step < steps.end; step += steps.stride) {
      const float4 low = add(row, k, first_channel(step), copied);
      const float4 high = add(row, k, second_channel(step), copied);
      const float sum = warp_sum(add_squares(high, add_squares(low, 0.0f)));
      if (step % kWarp == 0) peers.store(partials + step / kWarp, sum);
    }
    peers.synchronize();
    float sum = 0.0f;
    const auto lane = static_cast<int32_t>(threadIdx.x % kWarp);
    for (int32_t i = lane; kWarpChannels * i < k; i += kWarp) sum += partials[i];
    return {1.0f / sqrtf(warp_sum(sum) / static_cast<float>(k) + rows.eps)};
  }

  template <typename Copied>
  __device__ Values read(int32_t row, int32_t k, int32_t step, const Copied& copied) const {
    return {read_quad(row, k, first_channel(step), copied),
            read_quad(row, k, second_channel(step), copied)};
  }
  __device__ uint4 finish(const Values& x, const Constants& gain, const Begun& begun) const {
    const float f = begun.factor;
    return {to_bf16_pair(x.low.x * f * gain.low.x, x.low.y * f * gain.low.y),
            to_bf16_pair(x.low.z * f * gain.low.z, x.low.w * f * gain.low.w),
            to_bf16_pair(x.high.x * f * gain.high.x, x.high.y * f * gain.high.y),
            to_bf16_pair(x.high.z * f * gain.high.z, x.high.w * f * gain.high.w)};
  }

 private:
  template <typename Copied>
  __device__ void copy_quad(int64_t first, int32_t channel, const Copied& to) const {
    copy_async(to.template at<float>(0, channel), rows.residual + first + channel);
    if (rows.addend == nullptr) return;
    copy_async_8(to.template at<__nv_bfloat16>(4, channel), rows.addend + first + channel);
  }

  __device__ static float add_squares(const float4& x, float sum) {
    sum += x.x * x.x;
    sum += x.y * x.y;
    sum += x.z * x.z;
    sum += x.w * x.w;
    return sum;
  }

  template <typename Copied>
  __device__ float4 read_quad(int32_t row, int32_t k, int32_t channel, const Copied& copied) const {
    if (channel >= k) return {};
    if (copied.has(channel)) {
      return *reinterpret_cast<const float4*>(copied.template at<float>(0, channel));
    }
    return load_quad(rows.residual + int64_t{row} * k, channel, k);
  }

  // The residual with the addend, written back.
  template <typename Copied>
  __device__ float4 add(int32_t row, int32_t k, int32_t channel, const Copied& copied) const {
    float4 x = read_quad(row, k, channel, copied);
    if (rows.addend == nullptr || channel >= k) return x;
    const uint2 addend =
        copied.has(channel)
            ? *reinterpret_cast<const uint2*>(copied.template at<__nv_bfloat16>(4, channel))
            : load_quad(rows.addend + int64_t{row} * k, channel, k);
    x.x += low_float(addend.x), x.y += high_float(addend.x);
    x.z += low_float(addend.y), x.w += high_float(addend.y);
    store_quad(rows.residual + int64_t{row} * k, channel, k, x);
    if (copied.has(channel)) *reinterpret_cast<float4*>(copied.template at<float>(0, channel)) = x;
    return x;
  }
};

}  // namespace micromix::kernels::cuda
