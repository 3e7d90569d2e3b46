// The product for many rows of X where a GPU copies in bulk (sm_90): tiles of 256 rows of the
// weight by 128 of X.
//
// A block has an SM and stays. Eight warps, a panel of the weight each, go through a ring of chunks
// in shared memory that runs ahead over tiles. They never all meet: a warp waits until a chunk is
// there, says when it has read it, and writes its part of the outputs alone, so that some expand
// while others multiply. Every warp copies each eighth chunk, for all.
//
// Tiles seldom come out even over SMs. The last of them, one to two an SM, are therefore one row of
// chunks of which every block takes an equal share (stream-K), and takes it first: where a share
// begins inside a tile, the block leaves its sums in memory for the block in which that tile
// begins. Waiting for them ends because all blocks run at once.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/bulk_copy.cuh"
#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/tile_grid.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kLargeRows = 128;  // of X
inline constexpr int kLargePanels = 8;
inline constexpr int kLargeColumns = kLargePanels * kPanel;  // rows of the weight
inline constexpr int kLargeThreads = kLargePanels * kLanes;
inline constexpr int kLargeTiles = kLargeRows / 8;               // of instructions
inline constexpr int kLargeSums = kLargeRows * kPanel / kLanes;  // of a lane

// Shared memory: the ring of chunks, each the panels' records and X's blocks; then where warps turn
// their outputs, 16 rows at a time, padded against conflicts; then barriers.
struct LargeLayout {
  static constexpr int kMostStages = 8;
  static constexpr int kLeastStages = 4;
  static constexpr int kTurnedStride = kPanel * 2 + 16;
  static constexpr int kTurnedBytes = 16 * kTurnedStride;  // of a warp

  int stages;
  int slot_bytes;      // of the largest record
  int arriving_lanes;  // of a warp that has read a chunk

  __host__ __device__ int x_offset() const { return kLargePanels * slot_bytes; }
  __host__ __device__ int stage_bytes() const { return x_offset() + kLargeRows * kChunk * 2; }
  __host__ __device__ int turned_offset() const { return stages * stage_bytes(); }
  __host__ __device__ int full_offset() const {
    return turned_offset() + kLargePanels * kTurnedBytes;
  }
  __host__ __device__ int empty_offset() const { return full_offset() + stages * 8; }
  __host__ __device__ int bytes() const { return empty_offset() + stages * 8; }
};

// What blocks take: shares of the first SHARED tiles, then whole ones in turn.
struct LargeSchedule {
  TileGrid tiles;
  int32_t shared;
  int32_t chunks;        // of a tile
  int32_t share_chunks;  // of all shared ones that every block takes, and
  int32_t extra;         // one more of the first blocks
  float* partials;       // [blocks][kLargePanels][kLargeSums / 4][kLanes][4]
  uint32_t* counters;    // [blocks][kLargePanels]: whether they are there; zero between launches

  // The first of the shared chunks that a block takes.
  __device__ int share(int block) const { return block * share_chunks + min(block, extra); }
};

// The NUMBER-th of what this block works on: chunks BEGIN to END of a tile, which after the last is
// beyond all. Reckoned anew each time: there are no registers to keep more than the number.
struct LargePiece {
  int tile, begin, end;

  __device__ LargePiece(const LargeSchedule& schedule, int number) {
    const int chunks = schedule.chunks;
    const int share = schedule.share(blockIdx.x), share_end = schedule.share(blockIdx.x + 1);
    const int first = share / chunks;
    const int parts = share < share_end ? (share_end - 1) / chunks - first + 1 : 0;
    if (number < parts) {
      tile = first + number;
      begin = max(share - tile * chunks, 0);
      end = min(share_end - tile * chunks, chunks);
    } else {
      tile = schedule.shared + blockIdx.x + (number - parts) * gridDim.x;
      begin = 0;
      end = chunks;
    }
  }
};

// What a warp copies: of every eighth of the block's chunks the panels' records, a lane each, and
// X's blocks, by two more.
class LargeCopies {
 public:
  __device__ LargeCopies(const LargeSchedule& schedule, int warp) : chunk_(0) {
    enter(schedule);
    skip(schedule, warp);
  }

  // Of the next of them to stage STAGE, counted by the barrier FULL.
  __device__ void copy(const WeightView& weight, const ExactRows& x, const LargeSchedule& schedule,
                       const LargeLayout& layout, uint32_t stage, uint32_t full, int lane) {
    const int64_t first_row = int64_t{at_.row} * kLargeRows;
    const int rows_bytes = static_cast<int>(min(int64_t{kLargeRows}, x.m - first_row)) * 64;
    const WeightView::Segment& segment = segment_of(weight, chunk_);
    const int bytes = segment.record_bytes;
    arrive_expecting(full, kLargePanels * bytes + kBlocksPerChunk * rows_bytes, lane == 0);
    const int panel = min(at_.column * kLargePanels + lane, weight.panels - 1);
    const uint8_t* const record = weight.records + panel * weight.panel_bytes + segment.offset +
                                  (chunk_ - segment.first_chunk) * bytes;
    const int block = lane - kLargePanels;  // of X
    const uint8_t* const rows =
        reinterpret_cast<const uint8_t*>(x.values) +
        ((int64_t{chunk_} * kBlocksPerChunk + block) * x.m + first_row) * 64;
    const uint32_t to =
        block < 0 ? lane * layout.slot_bytes : layout.x_offset() + block * kLargeRows * 64;
    copy_bulk(stage + to, block < 0 ? record : rows, block < 0 ? bytes : rows_bytes, full,
              lane < kLargePanels + kBlocksPerChunk);
    skip(schedule, kLargePanels);
  }
  __device__ bool done() const { return done_; }

 private:
  __device__ void enter(const LargeSchedule& schedule) {
    const LargePiece piece(schedule, piece_);
    chunk_ += piece.begin;
    end_ = piece.end;
    done_ = piece.tile >= schedule.tiles.count();
    at_ = TilePosition(schedule.tiles, piece.tile);
  }
  __device__ void skip(const LargeSchedule& schedule, int chunks) {
    chunk_ += chunks;
    while (!done_ && chunk_ >= end_) {
      chunk_ -= end_;
      ++piece_;
      enter(schedule);
    }
  }

  int piece_ = 0;
  int chunk_, end_;
  TilePosition at_;
  bool done_;
};

// A chunk in the ring, as a warp's lane reads it.
struct LargeChunk {
  const uint8_t* record;  // of the warp's panel
  const uint8_t* rows;    // the lane's share of X's first eight
  uint32_t empty;         // the barrier that says that it has been read

  __device__ uint4 operator()(int block, int tile8) const {
    return *reinterpret_cast<const uint4*>(rows + (block * kLargeRows + tile8 * 8) * 64);
  }
};

// The ring, as a warp goes through it.
class LargeRing {
 public:
  // By all threads.
  __device__ static void prepare(const LargeLayout& layout, const uint8_t* shared) {
    if (threadIdx.x == 0) {
      for (int i = 0; i < layout.stages; ++i) {
        init_barrier(shared_address(shared + layout.full_offset()) + i * 8, 1);
        init_barrier(shared_address(shared + layout.empty_offset()) + i * 8,
                     kLargePanels * layout.arriving_lanes);
      }
      fence_barriers();
    }
    __syncthreads();
  }

  __device__ LargeRing(const WeightView& weight, const ExactRows& x, const LargeSchedule& schedule,
                       const LargeLayout& layout, const uint8_t* shared, int warp, int lane)
      : weight_(weight),
        x_(x),
        schedule_(schedule),
        layout_(layout),
        shared_(shared),
        full_(shared_address(shared + layout.full_offset())),
        empty_(shared_address(shared + layout.empty_offset())),
        warp_(warp),
        lane_(lane),
        copies_(schedule, warp) {
    for (int i = 0; i < ahead(); ++i) copy(i);
  }

  // The next chunk, once it is there.
  __device__ LargeChunk enter() {
    wait_for_phase(full_ + stage_ * 8, parity_);
    const uint8_t* const slots = shared_ + stage_ * layout_.stage_bytes();
    const LargeChunk chunk = {slots + warp_ * layout_.slot_bytes,
                              slots + layout_.x_offset() + lane_ * 16, empty_ + stage_ * 8};
    if (++stage_ == layout_.stages) {
      stage_ = 0;
      parity_ ^= 1;
    }
    return chunk;
  }
  // Once for every chunk: copies one, if it is this warp's.
  __device__ void copy_ahead() { copy(index_++ + ahead()); }
  __device__ void leave(const LargeChunk& chunk) const {
    __syncwarp();
    if (lane_ < layout_.arriving_lanes) arrive(chunk.empty);
  }

 private:
  // Two stages less than there are, so that a warp that copies need not wait for the slowest.
  __device__ int ahead() const { return layout_.stages - 2; }
  __device__ void copy(int index) {
    if (index % kLargePanels != warp_ || copies_.done()) return;
    const int round = index / layout_.stages, stage = index - round * layout_.stages;
    if (round > 0) wait_for_phase(empty_ + stage * 8, (round - 1) % 2);
    copies_.copy(weight_, x_, schedule_, layout_,
                 shared_address(shared_) + stage * layout_.stage_bytes(), full_ + stage * 8, lane_);
  }

  const WeightView& weight_;
  const ExactRows& x_;
  const LargeSchedule& schedule_;
  const LargeLayout& layout_;
  const uint8_t* shared_;
  uint32_t full_, empty_;
  int warp_, lane_;
  LargeCopies copies_;
  int index_ = 0;  // of the chunk, among all of the block's
  int stage_ = 0, parity_ = 0;
};

using LargeTileSums = float[2][kLargeTiles][4];

// The products of the next CHUNKS, one at least, of one format. What a block is expanded from is
// read while the block before it is multiplied.
template <mx::Format format>
__device__ void multiply_chunks(int chunks, int lane, LargeRing& ring, LargeTileSums& sums) {
  LargeChunk at = ring.enter();
  uint2 scales = load_scales<format>(at.record, lane);
  BlockWords<format> first(UnreadWords<format>{at.record, 0, lane});
  for (;;) {
    const BlockWords<format> second(UnreadWords<format>{at.record, 1, lane});
    multiply_block<format, 0>(first, scales, at, sums);
    ring.copy_ahead();
    const LargeChunk before = at;
    const uint2 scales_before = scales;
    const bool last = --chunks == 0;
    if (!last) {
      at = ring.enter();
      scales = load_scales<format>(at.record, lane);
      first = BlockWords<format>(UnreadWords<format>{at.record, 0, lane});
    }
    multiply_block<format, 1>(second, scales_before, before, sums);
    ring.leave(before);
    if (last) return;
  }
}
__device__ inline void multiply_chunks(mx::Format format, int chunks, int lane, LargeRing& ring,
                                       LargeTileSums& sums) {
  switch (format) {
    case mx::Format::kE2M1:
      return multiply_chunks<mx::Format::kE2M1>(chunks, lane, ring, sums);
    case mx::Format::kE2M3:
      return multiply_chunks<mx::Format::kE2M3>(chunks, lane, ring, sums);
    case mx::Format::kE3M2:
      return multiply_chunks<mx::Format::kE3M2>(chunks, lane, ring, sums);
    default:
      return multiply_chunks<mx::Format::kE4M3>(chunks, lane, ring, sums);
  }
}

// Where a warp leaves sums for the block that has the tile's beginning: [kLargeSums / 4][lane][4].
__device__ inline float4* left_sums(const LargeSchedule& schedule, int unit, int lane) {
  return reinterpret_cast<float4*>(schedule.partials) + int64_t{unit} * (kLargeSums / 4) * kLanes +
         lane;
}

__device__ inline void leave_sums(const LargeSchedule& schedule, int warp, int lane,
                                  const LargeTileSums& sums) {
  const int unit = static_cast<int>(blockIdx.x) * kLargePanels + warp;
  float4* const to = left_sums(schedule, unit, lane);
#pragma unroll
  for (int i = 0; i < kLargeSums / 4; ++i) {
    const float(&four)[4] = sums[i / kLargeTiles][i % kLargeTiles];
    to[i * kLanes] = {four[0], four[1], four[2], four[3]};
  }
  __syncwarp();
  if (lane == 0) announce_part(schedule.counters, unit);
}

// Adds what the blocks behind left of TILE, in their order. All lanes wait, though one could for
// all: after a loop of one lane the compiler takes no warp to be in step again.
__device__ inline void add_left_sums(const LargeSchedule& schedule, int tile, int warp, int lane,
                                     LargeTileSums& sums) {
  const int end = (tile + 1) * schedule.chunks;
  for (int block = blockIdx.x + 1; schedule.share(block) < end; ++block) {
    const int unit = block * kLargePanels + warp;
    await_parts(schedule.counters, unit, 1);
    __syncwarp();
    if (lane == 0) schedule.counters[unit] = 0;
    const float4* const from = left_sums(schedule, unit, lane);
#pragma unroll
    for (int i = 0; i < kLargeSums / 4; ++i) {
      const float4 four = from[i * kLanes];
      float(&to)[4] = sums[i / kLargeTiles][i % kLargeTiles];
      to[0] += four.x;
      to[1] += four.y;
      to[2] += four.z;
      to[3] += four.w;
    }
  }
}

__device__ inline uint32_t bf16_pair(__nv_bfloat16 low, __nv_bfloat16 high) {
  const __nv_bfloat162 pair(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// Four 8 by 8 matrices of BF16 as a product leaves them in a warp, transposed: lane l has the
// address of row l % 8 of matrix l / 8.
__device__ inline void store_transposed(uint32_t address, const uint32_t (&m)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
      : "memory");
}

// A warp's outputs of a tile: those of its panel.
__device__ inline void write_panel(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                                   const TilePosition& at, int warp, int lane, uint8_t* turned,
                                   const LargeTileSums& sums) {
  constexpr int kStride = LargeLayout::kTurnedStride;
  const int64_t first_row = int64_t{at.row} * kLargeRows;
  const int64_t first_column = int64_t{at.column} * kLargeColumns + warp * kPanel;
  if (first_column >= weight.n) return;
  RowEnd ends[4];
  bool special = false;
#pragma unroll
  for (int side = 0; side < 4; ++side) {
    ends[side] = RowEnd(weight, min(first_column + side * 8 + lane / 4, weight.n - 1));
    special |= ends[side].needs_oracle();
  }
#pragma unroll
  for (int i = 0; i < kLargeRows; i += kLanes) {
    special |= x.special[min(first_row + i + lane, x.m - 1)] != 0;
  }
  const bool any_special = __any_sync(~0u, special);

  const int64_t column = first_column + lane % 4 * 8;  // the first of eight that the lane writes
#pragma unroll
  for (int first = 0; first < kLargeTiles; first += 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t pairs[4];
#pragma unroll
      for (int side = 0; side < 4; ++side) {
        const float* const two = &sums[side / 2][first + i][side % 2 * 2];
        pairs[side] = bf16_pair(ends[side].finish(two[0]), ends[side].finish(two[1]));
      }
      store_transposed(shared_address(turned) + (i * 8 + lane % 8) * kStride + lane / 8 * 16,
                       pairs);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t row = first_row + (first + i) * 8 + lane / 4;
      const auto* const from = reinterpret_cast<const __nv_bfloat16*>(
          turned + (i * 8 + lane / 4) * kStride + lane % 4 * 16);
      __nv_bfloat16* const to = y + row * weight.n + column;
      if (row >= x.m) continue;
      if (weight.n % 8 == 0) {
        if (column < weight.n) {
          *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
        }
      } else {
        for (int j = 0; j < 8 && column + j < weight.n; ++j) to[j] = from[j];
      }
    }
    __syncwarp();
  }
  if (!any_special) return;
#pragma unroll 1
  for (int i = lane; i < kLargeRows * kPanel; i += kLanes) {
    const int64_t x_row = first_row + i / kPanel, y_column = first_column + i % kPanel;
    if (x_row < x.m && y_column < weight.n &&
        (RowEnd(weight, y_column).needs_oracle() || x.special[x_row] != 0)) {
      y[x_row * weight.n + y_column] = oracle_output(weight, x, x_row, y_column);
    }
  }
}

__global__ void __launch_bounds__(kLargeThreads, 1)
    multiply_large(const __grid_constant__ WeightView weight, const __grid_constant__ ExactRows x,
                   __nv_bfloat16* y, const __grid_constant__ LargeSchedule schedule,
                   const __grid_constant__ LargeLayout layout) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(16) uint8_t shared[];
  const int lane = threadIdx.x % kLanes;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / kLanes), 0);
  allow_next_grid();
  LargeRing::prepare(layout, shared);
  wait_for_previous_grid();
  LargeRing ring(weight, x, schedule, layout, shared, warp, lane);
  for (int number = 0;; ++number) {
    LargeTileSums sums = {};
    const LargePiece piece(schedule, number);
    if (piece.tile >= schedule.tiles.count()) break;
    SegmentCursor segment(weight, piece.begin);
    for (int chunk = piece.begin; chunk < piece.end;) {
      segment.move_to(weight, chunk);
      const int end = min(piece.end, segment.end);
      multiply_chunks(segment.format, end - chunk, lane, ring, sums);
      chunk = end;
    }
    if (piece.begin > 0) {
      leave_sums(schedule, warp, lane, sums);
      continue;
    }
    if (piece.end < schedule.chunks) add_left_sums(schedule, piece.tile, warp, lane, sums);
    write_panel(weight, x, y, TilePosition(schedule.tiles, piece.tile), warp, lane,
                shared + layout.turned_offset() + warp * LargeLayout::kTurnedBytes, sums);
  }
#endif
}

}  // namespace micromix::kernels::cuda
