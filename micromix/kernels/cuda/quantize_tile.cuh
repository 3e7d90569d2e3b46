// Rows in shared memory to blocks of the plan, quantized and written. A warp takes a tile of 16
// blocks of one segment, so its lanes do not diverge; two lanes a block have 16 channels each.
//
// One row is worked on at a time, or two together (kRows): then they share all that is not
// arithmetic on values, and stand interleaved in shared memory, so that one load gathers a channel
// of both. A word's two sides (block_rounding.cuh) are the two rows; of one row, the first and
// second eight of a lane's channels.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/block_rounding.cuh"
#include "micromix/kernels/cuda/code_packing.cuh"
#include "micromix/kernels/cuda/peers.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kTileBlocks = 16;
inline constexpr int kLaneChannels = mx::kBlockSize * kTileBlocks / kWarp;
template <int kRows>
inline constexpr int kWords = (kLaneChannels * kRows) / kSides;
static_assert(kTileBlocks % kBlocksPerChunk == 0);  // so padding takes no tile of its own

// Of 16 bytes: two rows' exact values of a block, and of half a tile's blocks.
inline constexpr int kBlockPieces = 2 * mx::kBlockSize * 2 / 16;
inline constexpr int kExchangeBlocks = kTileBlocks / 2;
inline constexpr int kExchangePieces = kExchangeBlocks * kBlockPieces;

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
  int32_t m;
  int32_t padded_m;
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
  int32_t tile_block;   // the tile's first, in its segment
  int32_t local_block;  // the thread's; at its segment's end begins padding, then nothing
  int32_t blocks;       // of the segment
  int half;

  __device__ bool in_segment() const { return local_block < blocks; }
  // Chunks are whole, so a segment with an odd number of blocks has one of padding.
  __device__ bool is_stored(int32_t block) const {
    return block < (blocks + kBlocksPerChunk - 1) / kBlocksPerChunk * kBlocksPerChunk;
  }
};

__device__ inline Place find_place(const Job& job, int32_t tile) {
  int segment = 0;
  int32_t first_tile = 0;
#pragma unroll
  for (int s = 1; s < kMostSegments; ++s) {
    if (tile >= job.segments[s].first_tile) segment = s, first_tile = job.segments[s].first_tile;
  }
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const int32_t tile_block = (tile - first_tile) * kTileBlocks;
  return {segment, tile_block, tile_block + lane / 2, job.segments[segment].blocks, lane % 2};
}

// The first of a thread's permuted channels; beyond a segment's end, of its last block's.
__device__ inline int32_t first_permuted(const Job& job, const Place& place) {
  return job.segments[place.segment].first +
         min(place.local_block, place.blocks - 1) * mx::kBlockSize + place.half * kLaneChannels;
}

// A channel as it is kept in shared memory: of one row, or of two in a word. Where it is there, in
// 16 bits, counts in units of kUnit bytes.
template <int kRows>
struct Staged;
template <>
struct Staged<1> {
  using Channel = uint16_t;
  static constexpr int32_t kUnit = 2;
};
template <>
struct Staged<2> {
  using Channel = uint32_t;
  static constexpr int32_t kUnit = 1;
  static constexpr int32_t kMostChannels = 0x10000 / sizeof(Channel);
};

// Where the channels are that stand at 16 permuted ones, two in a word.
using LaneChannels = uint32_t[kLaneChannels / 2];

// Those from permuted channel FIRST on.
template <int kRows>
__device__ void load_channels(const Job& job, int32_t first, LaneChannels& channels) {
  using Row = Staged<kRows>;
  constexpr uint32_t kUnits = sizeof(typename Row::Channel) / Row::kUnit;
#pragma unroll
  for (int i = 0; i < kLaneChannels / 2; i += 2) {
    const int32_t at = first + 2 * i;
    int4 four = {at, at + 1, at + 2, at + 3};
    if (job.permutation != nullptr) {
      four = __ldg(reinterpret_cast<const int4*>(job.permutation + at));
    }
    channels[i] = (static_cast<uint32_t>(four.x) | static_cast<uint32_t>(four.y) << 16) * kUnits;
    channels[i + 1] =
        (static_cast<uint32_t>(four.z) | static_cast<uint32_t>(four.w) << 16) * kUnits;
  }
}

template <int kRows>
__device__ void gather(const void* staged, const LaneChannels& channels,
                       uint32_t (&x)[kWords<kRows>]) {
  using Row = Staged<kRows>;
  const auto at = [&](int i) -> uint32_t {
    const uint32_t place = i % 2 == 0 ? channels[i / 2] & 0xFFFFu : channels[i / 2] >> 16;
    return *reinterpret_cast<const typename Row::Channel*>(static_cast<const char*>(staged) +
                                                           place * Row::kUnit);
  };
#pragma unroll
  for (int i = 0; i < kWords<kRows>; ++i) {
    if constexpr (kRows == 2) {
      x[i] = at(i);
    } else {
      x[i] = low_sides(at(i), at(i + kLaneChannels / 2));
    }
  }
}

// Stores row ROW's 64 bytes of a block, 32 a thread's, as 16-byte pieces in turn over the two
// threads, so that both stores fill sectors. All of the warp call it, with what they have STORED if
// anything.
__device__ inline void store_block(uint4* block, int32_t row, int half, bool stored,
                                   const uint4 (&x)[2]) {
  uint4 low = x[0], high = x[1];
  const uint4 sent = half == 0 ? high : low;
  const uint4 other = {__shfl_xor_sync(~0u, sent.x, 1), __shfl_xor_sync(~0u, sent.y, 1),
                       __shfl_xor_sync(~0u, sent.z, 1), __shfl_xor_sync(~0u, sent.w, 1)};
  if (half == 0) {
    high = other;
  } else {
    low = other;
  }
  if (!stored) return;
  block[exact_piece(row, half)] = low;
  block[exact_piece(row, 2 + half)] = high;
}

// The side SIDE of eight words, in their order.
__device__ inline uint4 side_of(int side, const uint32_t* x) {
  if (side == 0) {
    return {low_sides(x[0], x[1]), low_sides(x[2], x[3]), low_sides(x[4], x[5]),
            low_sides(x[6], x[7])};
  }
  return {high_sides(x[0], x[1]), high_sides(x[2], x[3]), high_sides(x[4], x[5]),
          high_sides(x[6], x[7])};
}

// What the values of a block are scaled by, of each row's.
template <int kRows>
struct Scale {
  uint32_t byte[kRows];
  int shift[kRows];     // of exact rows
  uint32_t inverse;     // on their sides
  uint32_t multiplier;  // of exact rows, likewise
};

// A row's VALUE of 16 bits, or both rows', on their sides.
template <int kRows>
__device__ uint32_t on_sides(const uint32_t (&value)[kRows]) {
  return low_sides(value[0], value[kRows - 1]);
}

// The scale of X. Blocks that are not finite are made zeros, in a BF16 segment NaN; padding, whose
// X are anything, zeros.
template <int kRows>
__device__ Scale<kRows> scale_block(const Job& job, const SegmentJob& segment, const Place& place,
                                    uint32_t (&x)[kWords<kRows>]) {
  uint32_t largest = largest_magnitude(x);
  if constexpr (kRows == 1) {
    largest = larger_magnitude_or_nan(largest, __byte_perm(largest, 0, 0x1032));
  }
  largest = larger_magnitude_or_nan(largest, __shfl_xor_sync(~0u, largest, 1)) & ~kSigns;
  if (!place.in_segment()) largest = 0;
  const uint32_t exponent = scale_exponent(largest, segment.rounding);
  Scale<kRows> scale{};
  scale.inverse = inverse_scale(exponent);
  scale.multiplier = exponent;
  bool rare = !place.in_segment();  // few blocks are not finite or need a shift
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    scale.byte[r] = scale_byte(side_bits(r, largest), side_bits(r, exponent));
    rare |= scale.byte[r] == mx::kScaleNan;
  }
  if (job.exact.values != nullptr && !segment.bf16) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      scale.shift[r] = exact_shift(scale.byte[r]);
      rare |= scale.shift[r] != 0;
    }
  }
  if (__any_sync(~0u, rare)) {
    uint32_t multipliers[kRows], kept[kRows], otherwise[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      multipliers[r] = exact_multiplier(scale.byte[r]);
      const bool nan = scale.byte[r] == mx::kScaleNan;
      kept[r] = nan || !place.in_segment() ? 0u : 0xFFFFu;
      otherwise[r] = nan && segment.bf16 ? kNan : 0u;
    }
    scale.multiplier = on_sides(multipliers);
#pragma unroll
    for (uint32_t& each : x) each = (each & on_sides(kept)) | on_sides(otherwise);
  }
  return scale;
}

// VALUES to exact rows. A row's block is 64 bytes, 32 a thread's.
__device__ inline void store_values(const Job& job, const SegmentJob& segment, const Place& place,
                                    int32_t row, const uint32_t (&values)[kWords<1>], uint4*) {
  const int64_t at = int64_t{segment.first_block + place.local_block} * job.m + row;
  store_block(reinterpret_cast<uint4*>(job.exact.values + at * mx::kBlockSize), row, place.half,
              place.is_stored(place.local_block), {side_of(0, values), side_of(1, values)});
}

// Two rows' are 128 consecutive bytes, which the warp exchanges so that a store fills them: small
// pieces are what bounds the L2 cache. Half of the blocks at a time, each one's pieces turned so
// that neither side of the exchange meets itself in shared memory's banks.
__device__ inline void store_values(const Job& job, const SegmentJob& segment, const Place& place,
                                    int32_t row, const uint32_t (&values)[kWords<2>],
                                    uint4* exchange) {
  constexpr int kStored = kWarp / kBlockPieces;  // blocks at a time
  const auto piece_of = [exchange](int block, int piece) -> uint4& {
    return exchange[block * kBlockPieces + (piece ^ ((block & 1) | (block & 2) << 1))];
  };
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const int own = lane / 2, across = lane % kBlockPieces, down = lane / kBlockPieces;
  const bool exists = row + across / (kBlockPieces / 2) < job.m;
  int64_t at = int64_t{segment.first_block + place.tile_block + down} * job.m + row;
#pragma unroll
  for (int first = 0; first < kTileBlocks; first += kExchangeBlocks) {
    __syncwarp();
    if (own / kExchangeBlocks == first / kExchangeBlocks) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int piece = r * kBlockPieces / 2 + 2 * place.half;
        piece_of(own % kExchangeBlocks, piece) = side_of(r, values);
        piece_of(own % kExchangeBlocks, piece + 1) = side_of(r, values + 8);
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kExchangeBlocks; i += kStored) {
      if (exists && place.is_stored(place.tile_block + first + i + down)) {
        // The first row is even: both have their pieces in the same order.
        reinterpret_cast<uint4*>(job.exact.values + at * mx::kBlockSize)[exact_piece(row, across)] =
            piece_of(i + down, across);
      }
      at += int64_t{job.m} * kStored;
    }
  }
}

template <int kRows>
__device__ void write_exact(const Job& job, const SegmentJob& segment, const Place& place,
                            int32_t row, const Scale<kRows>& scale,
                            const uint32_t (&x)[kWords<kRows>], uint4* exchange) {
  uint32_t values[kWords<kRows>];
  if (segment.bf16) {
#pragma unroll
    for (int i = 0; i < kWords<kRows>; ++i) values[i] = x[i];
  } else {
    const BlockRounding rounding = segment.rounding;
#pragma unroll
    for (int i = 0; i < kWords<kRows>; ++i) {
      values[i] = exact_values(x[i], scale.inverse, scale.multiplier, rounding);
    }
  }
  store_values(job, segment, place, row, values, exchange);
  if (!place.is_stored(place.local_block) || place.half != 0) return;
  int8_t* const shifts =
      job.exact.shifts + int64_t{segment.first_block + place.local_block} * job.m + row;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= job.m) return;
    shifts[r] = static_cast<int8_t>(scale.shift[r]);
    if (scale.shift[r] != 0) job.exact.special[row + r] = 1;
  }
}

template <int kBits, int kRows>
__device__ void write_bits(const Job& job, const BlockRounding& rounding, const Place& place,
                           int32_t row, uint8_t* block, uint32_t inverse_scale,
                           const uint32_t (&x)[kWords<kRows>]) {
  EightCodes codes[kRows][kSides];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    uint32_t magnitudes[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      magnitudes[j] = code_magnitudes(x[8 * i + j], inverse_scale, rounding);
    }
    pack_codes<kBits>(x + 8 * i, magnitudes, codes[i]);
  }
  if constexpr (kRows == 1) {
    store_codes<kBits>(block, place.half, codes[0][0], codes[0][1]);
  } else {
    constexpr int kRowBytes = kBlocksPerChunk * mx::kBlockSize / 8 * kBits;
    store_codes<kBits>(block, place.half, codes[0][0], codes[1][0]);
    if (row + 1 == job.m) return;
    store_codes<kBits>(block + kRowBytes, place.half, codes[0][1], codes[1][1]);
  }
}

template <int kRows>
__device__ void write_codes(const Job& job, const SegmentJob& segment, const Place& place,
                            int32_t row, const Scale<kRows>& scale,
                            const uint32_t (&x)[kWords<kRows>]) {
  if (!place.is_stored(place.local_block)) return;
  const int32_t chunk = place.local_block / kBlocksPerChunk;
  const int32_t block = place.local_block % kBlocksPerChunk;
  if (place.half == 0) {
    uint8_t* const to =
        segment.scales + (int64_t{chunk} * job.padded_m + row) * kBlocksPerChunk + block;
    // Where there are no two rows, the second's scale is one of those that may be anything.
#pragma unroll
    for (int r = 0; r < kRows; ++r) to[r * kBlocksPerChunk] = static_cast<uint8_t>(scale.byte[r]);
  }
  const BlockRounding rounding = segment.rounding;
  // Of two rows, the first even: both have their blocks in the same order.
  const int64_t at =
      (int64_t{chunk} * job.m + row) * kBlocksPerChunk + stored_block(rounding.bits, row, block);
  uint8_t* const to = segment.codes + at * (mx::kBlockSize / 8 * rounding.bits);
  if (rounding.bits == 4) {
    write_bits<4, kRows>(job, rounding, place, row, to, scale.inverse, x);
  } else if (rounding.bits == 6) {
    write_bits<6, kRows>(job, rounding, place, row, to, scale.inverse, x);
  } else {
    write_bits<8, kRows>(job, rounding, place, row, to, scale.inverse, x);
  }
}

// Rows ROW to ROW + kRows - 1, the last of which may be beyond the end. All of the warp call it.
// The rows' SPECIAL must be zero before. EXCHANGE: the warp's room, of two rows.
template <int kRows>
__device__ void quantize_tile(const Job& job, const Place& place, int32_t row, const void* staged,
                              const LaneChannels& channels, uint4* exchange) {
  const SegmentJob& segment = job.segments[place.segment];
  uint32_t x[kWords<kRows>];
  gather<kRows>(staged, channels, x);
  const Scale<kRows> scale = scale_block<kRows>(job, segment, place, x);
  if (job.exact.values != nullptr) write_exact<kRows>(job, segment, place, row, scale, x, exchange);
  if (job.codes) write_codes<kRows>(job, segment, place, row, scale, x);
}

}  // namespace micromix::kernels::cuda
