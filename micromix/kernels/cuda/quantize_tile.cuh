// A row in shared memory to blocks of the plan, quantized and written. A warp takes a tile of 16
// blocks of one segment, so its lanes do not diverge; two lanes a block have 16 channels each, two
// in a word.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/block_rounding.cuh"
#include "micromix/kernels/cuda/peers.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kTileBlocks = 16;
inline constexpr int kLaneChannels = mx::kBlockSize * kTileBlocks / kWarp;
inline constexpr int kWords = kLaneChannels / 2;
static_assert(kTileBlocks % kBlocksPerChunk == 0);  // so padding takes no tile of its own

struct SegmentJob {
  int32_t first;  // permuted channel
  int32_t blocks;
  int32_t first_block;  // in exact rows
  int32_t first_tile;
  bool bf16;
  BlockRounding rounding;
  uint8_t* codes;   // code rows'
  uint8_t* scales;  // of the segment's first chunk
};

struct Job {
  int64_t m;
  int32_t k;
  const int32_t* permutation;
  int32_t tiles;                       // 0 where nothing is quantized
  SegmentJob segments[kMostSegments];  // those that there are not begin after all tiles
  ExactRows exact;                     // values null: not wanted
  bool codes;
  __nv_bfloat16* rows;
};

// Where a thread is: its warp's tile, its block and its half of that.
struct Place {
  int segment;          // the warp's
  int32_t local_block;  // in its segment; at its end begins padding, then nothing
  int half;
  bool in_segment;
  bool stored;  // chunks are whole, so a segment with an odd number of blocks has one of padding
};

__device__ inline Place find_place(const Job& job, int32_t tile) {
  int segment = 0;
  int32_t first_tile = 0;
#pragma unroll
  for (int s = 1; s < kMostSegments; ++s) {
    if (tile >= job.segments[s].first_tile) segment = s, first_tile = job.segments[s].first_tile;
  }
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const int32_t block = (tile - first_tile) * kTileBlocks + lane / 2;
  const int32_t blocks = job.segments[segment].blocks;
  const int32_t padded = (blocks + kBlocksPerChunk - 1) / kBlocksPerChunk * kBlocksPerChunk;
  return {segment, block, lane % 2, block < blocks, block < padded};
}

// The first of a thread's permuted channels.
__device__ inline int32_t first_permuted(const Job& job, const Place& place) {
  return job.segments[place.segment].first + place.local_block * mx::kBlockSize +
         place.half * kLaneChannels;
}

// The channels that stand at the 16 permuted ones from FIRST on, 16 bits each (kMostChannels).
__device__ inline void load_channels(const Job& job, int32_t first, uint32_t (&channels)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; i += 2) {
    const int32_t at = first + 2 * i;
    int4 four = {at, at + 1, at + 2, at + 3};
    if (job.permutation != nullptr) {
      four = __ldg(reinterpret_cast<const int4*>(job.permutation + at));
    }
    channels[i] = static_cast<uint32_t>(four.x) | static_cast<uint32_t>(four.y) << 16;
    channels[i + 1] = static_cast<uint32_t>(four.z) | static_cast<uint32_t>(four.w) << 16;
  }
}

// The row's values at CHANNELS.
__device__ inline void gather(const uint16_t* staged, const uint32_t (&channels)[kWords],
                              uint32_t (&x)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const uint32_t low = staged[channels[i] & 0xFFFFu], high = staged[channels[i] >> 16];
    x[i] = __byte_perm(low, high, 0x5410);
  }
}

// Stores a block's 64 bytes, 32 a thread's, as 16-byte pieces in their order over the two threads,
// so that both stores fill sectors. All of the warp call it, with what they have STORED if
// anything.
__device__ inline void store_block(uint4* block, int half, bool stored,
                                   const uint32_t (&x)[kWords]) {
  uint4 low = {x[0], x[1], x[2], x[3]}, high = {x[4], x[5], x[6], x[7]};
  const uint4 sent = half == 0 ? high : low;
  const uint4 other = {__shfl_xor_sync(~0u, sent.x, 1), __shfl_xor_sync(~0u, sent.y, 1),
                       __shfl_xor_sync(~0u, sent.z, 1), __shfl_xor_sync(~0u, sent.w, 1)};
  if (half == 0) {
    high = other;
  } else {
    low = other;
  }
  if (!stored) return;
  block[half] = low;
  block[2 + half] = high;
}

// Four codes of two words, packed: in the low 4 BITS bits.
template <int kBits>
__device__ uint32_t pack_four(uint32_t first, uint32_t second) {
  if constexpr (kBits == 8) return __byte_perm(first, second, 0x6420);
  const uint32_t even = __byte_perm(first, second, 0x5410);
  const uint32_t odd = __byte_perm(first, second, 0x7632);
  const uint32_t twos = even + (odd << kBits);  // in each half
  if constexpr (kBits == 4) return __byte_perm(twos, 0, 0x4420);
  return (twos & 0xFFFu) | (twos >> 4 & 0xFFF000u);
}

// CODES to a block's 4 BITS bytes, half of them a thread's.
template <int kBits>
__device__ void store_codes(uint8_t* block, int half, const uint32_t (&codes)[kWords]) {
  uint32_t fours[kWords / 2];
#pragma unroll
  for (int i = 0; i < kWords / 2; ++i) {
    fours[i] = pack_four<kBits>(codes[2 * i], codes[2 * i + 1]);
  }
  if constexpr (kBits == 4) {
    reinterpret_cast<uint2*>(block)[half] = {fours[0] | fours[1] << 16, fours[2] | fours[3] << 16};
  } else if constexpr (kBits == 8) {
    reinterpret_cast<uint4*>(block)[half] = {fours[0], fours[1], fours[2], fours[3]};
  } else {
    // Blocks begin at multiples of eight bytes: the first half has its eight in front, the second
    // behind.
    const uint32_t words[3] = {fours[0] | fours[1] << 24, fours[1] >> 8 | fours[2] << 16,
                               fours[2] >> 16 | fours[3] << 8};
    const bool first = half == 0;
    reinterpret_cast<uint2*>(block)[2 * half] =
        first ? uint2{words[0], words[1]} : uint2{words[1], words[2]};
    reinterpret_cast<uint32_t*>(block)[2 + half] = first ? words[2] : words[0];
  }
}

// What a block's values are scaled by.
struct Scale {
  uint32_t byte;
  uint32_t inverse;
  uint32_t multiplier;  // of exact rows
  int shift;            // of exact rows
};

// The scale of X. Blocks that are not finite are made zeros, in a BF16 segment NaN.
__device__ inline Scale scale_block(const SegmentJob& segment, uint32_t (&x)[kWords]) {
  uint32_t largest = largest_magnitude(x);
  largest = maximum_or_nan(largest, __shfl_xor_sync(~0u, largest, 1));
  const uint32_t exponent = scale_exponent(largest, segment.rounding);
  Scale scale = {scale_byte(largest, exponent), inverse_scale(exponent), exponent, 0};
  if (!segment.bf16) scale.shift = exact_shift(scale.byte);
  // Few blocks need a shift or are not finite.
  if (__any_sync(~0u, scale.byte == mx::kScaleNan || scale.shift != 0)) {
    scale.multiplier = exact_multiplier(scale.byte);
    if (scale.byte == mx::kScaleNan) {
#pragma unroll
      for (uint32_t& each : x) each = segment.bf16 ? kNans : 0u;
    }
  }
  return scale;
}

__device__ inline void write_exact(const Job& job, const SegmentJob& segment, const Place& place,
                                   int64_t row, const Scale& scale, const uint32_t (&x)[kWords]) {
  const int64_t at = (segment.first_block + place.local_block) * job.m + row;
  uint32_t values[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    values[i] =
        segment.bf16 ? x[i] : exact_values(x[i], scale.inverse, scale.multiplier, segment.rounding);
  }
  store_block(reinterpret_cast<uint4*>(job.exact.values + at * mx::kBlockSize), place.half,
              place.stored, values);
  if (!place.stored || place.half != 0) return;
  job.exact.shifts[at] = static_cast<int8_t>(scale.shift);
  if (scale.shift != 0) job.exact.special[row] = 1;
}

__device__ inline void write_codes(const Job& job, const SegmentJob& segment, const Place& place,
                                   int64_t row, const Scale& scale, const uint32_t (&x)[kWords]) {
  if (!place.stored) return;
  const int32_t chunk = place.local_block / kBlocksPerChunk;
  const int32_t block = place.local_block % kBlocksPerChunk;
  if (place.half == 0) {
    segment.scales[(chunk * padded_rows(job.m) + row) * kBlocksPerChunk + block] =
        static_cast<uint8_t>(scale.byte);
  }
  const BlockRounding rounding = segment.rounding;
  uint32_t codes[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) codes[i] = element_codes(x[i], scale.inverse, rounding);
  const int64_t at =
      (chunk * job.m + row) * kBlocksPerChunk + stored_block(rounding.bits, row, block);
  uint8_t* const to = segment.codes + at * (mx::kBlockSize / 8 * rounding.bits);
  if (rounding.bits == 4) {
    store_codes<4>(to, place.half, codes);
  } else if (rounding.bits == 6) {
    store_codes<6>(to, place.half, codes);
  } else {
    store_codes<8>(to, place.half, codes);
  }
}

// All of the warp call it. The row's SPECIAL must be zero before.
__device__ inline void quantize_tile(const Job& job, const Place& place, int64_t row,
                                     const uint16_t* staged, const uint32_t (&channels)[kWords]) {
  const SegmentJob& segment = job.segments[place.segment];
  uint32_t x[kWords];
  gather(staged, channels, x);
#pragma unroll
  for (uint32_t& each : x) each = place.in_segment ? each : 0u;
  const Scale scale = scale_block(segment, x);
  if (job.exact.values != nullptr) write_exact(job, segment, place, row, scale, x);
  if (job.codes) write_codes(job, segment, place, row, scale, x);
}

}  // namespace micromix::kernels::cuda
