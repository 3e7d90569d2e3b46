// What a block of Hopper's product works on (product.cuh), and the ring in shared memory by which
// it comes there.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/bulk_copy.cuh"
#include "micromix/kernels/cuda/hopper/wgmma.cuh"
#include "micromix/kernels/cuda/packed_layout.h"
#include "micromix/kernels/cuda/segment_cursor.cuh"
#include "micromix/kernels/cuda/shared_barrier.cuh"
#include "micromix/kernels/cuda/tile_order.cuh"

namespace micromix::kernels::cuda::hopper {

// A tile of Y, and a block's warps, which have a panel of the weight each.
inline constexpr int kRows = kProductRows;  // of X
inline constexpr int kPanels = 8;
inline constexpr int kColumns = kPanels * kPanel;  // rows of the weight
inline constexpr int kThreads = kPanels * kLanes;
inline constexpr int kLaneSums = kRows * kPanel / kLanes;

// Shared memory: the ring of chunks, each the panels' records and X's blocks; then where warps turn
// their outputs, 16 rows at a time, padded against conflicts; then barriers.
struct RingLayout {
  static constexpr int kMostStages = 8;
  static constexpr int kLeastStages = 4;
  static constexpr int kTurnedStride = kPanel * 2 + 16;
  static constexpr int kTurnedBytes = 16 * kTurnedStride;  // of a warp

  int stages;
  int slot_bytes;      // of the largest record
  int arriving_lanes;  // of a warp that has read a chunk

  __host__ __device__ int x_offset() const { return kPanels * slot_bytes; }
  __host__ __device__ int stage_bytes() const { return x_offset() + kRows * kChunk * 2; }
  __host__ __device__ int turned_offset() const { return stages * stage_bytes(); }
  __host__ __device__ int full_offset() const { return turned_offset() + kPanels * kTurnedBytes; }
  __host__ __device__ int empty_offset() const { return full_offset() + stages * 8; }
  __host__ __device__ int bytes() const { return empty_offset() + stages * 8; }
};

// What blocks take: shares of the first SHARED tiles, then whole ones in turn. Or, of a cluster in
// row Y of the grid, shares of tile Y.
struct Schedule {
  TileOrder tiles;
  int32_t shared;
  int32_t chunks;        // of a tile
  int32_t share_chunks;  // of the shared ones that every block takes, and
  int32_t extra;         // one more of the first blocks
  float* partials;       // [blocks][kPanels][kLaneSums / 4][kLanes][4]
  uint32_t* counters;    // [blocks][kPanels]: whether they are there; zero between launches

  // The first of the shared chunks that a block takes.
  __device__ int share(int block) const {
    return static_cast<int>(blockIdx.y) * chunks + block * share_chunks + min(block, extra);
  }
};

// The NUMBER-th of what this block works on: chunks BEGIN to END of a tile, which after the last is
// beyond all. Reckoned anew each time: there are no registers to keep more than the number.
struct Piece {
  int tile, begin, end;

  __device__ Piece(const Schedule& schedule, int number) {
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
class Copies {
 public:
  __device__ Copies(const Schedule& schedule, int warp) : chunk_(0) {
    enter(schedule);
    skip(schedule, warp);
  }

  // Of the next of them to stage STAGE, counted by the barrier FULL.
  __device__ void copy(const WeightView& weight, const ExactRows& x, const Schedule& schedule,
                       const RingLayout& layout, uint32_t stage, uint32_t full, int lane) {
    const int64_t first_row = int64_t{at_.row} * kRows;
    const int rows_bytes = static_cast<int>(min(int64_t{kRows}, x.m - first_row)) * 64;
    const WeightView::Segment& segment = segment_of(weight, chunk_);
    const int bytes = segment.record_bytes;
    arrive_expecting(full, kPanels * bytes + kBlocksPerChunk * rows_bytes, lane == 0);
    const int panel = min(at_.column * kPanels + lane, weight.panels - 1);
    const uint8_t* const record = weight.records + panel * weight.panel_bytes + segment.offset +
                                  (chunk_ - segment.first_chunk) * bytes;
    const int block = lane - kPanels;  // of X
    const uint8_t* const rows =
        reinterpret_cast<const uint8_t*>(x.values) +
        ((int64_t{chunk_} * kBlocksPerChunk + block) * x.m + first_row) * 64;
    const uint32_t to =
        block < 0 ? lane * layout.slot_bytes : layout.x_offset() + block * kRows * 64;
    copy_bulk(stage + to, block < 0 ? record : rows, block < 0 ? bytes : rows_bytes, full,
              lane < kPanels + kBlocksPerChunk);
    skip(schedule, kPanels);
  }
  __device__ bool done() const { return done_; }

 private:
  __device__ void enter(const Schedule& schedule) {
    const Piece piece(schedule, piece_);
    chunk_ += piece.begin;
    end_ = piece.end;
    done_ = piece.tile >= schedule.tiles.count();
    if (!done_) at_ = Tile(schedule.tiles, piece.tile);
  }
  __device__ void skip(const Schedule& schedule, int chunks) {
    chunk_ += chunks;
    while (!done_ && chunk_ >= end_) {
      chunk_ -= end_;
      ++piece_;
      enter(schedule);
    }
  }

  int piece_ = 0;
  int chunk_, end_;
  Tile at_;
  bool done_;
};

// A chunk in the ring, as a warp sees it.
struct RingChunk {
  const uint8_t* record;  // of the warp's panel
  uint32_t rows;          // X's blocks
  uint32_t empty;         // the barrier that says that it has been read

  __device__ uint32_t block(int index) const { return rows + index * kRows * 64; }
};

// The ring, as a warp goes through it.
class Ring {
 public:
  // By all threads.
  __device__ static void prepare(const RingLayout& layout, const uint8_t* shared) {
    if (threadIdx.x == 0) {
      for (int i = 0; i < layout.stages; ++i) {
        init_barrier(shared_address(shared + layout.full_offset()) + i * 8, 1);
        init_barrier(shared_address(shared + layout.empty_offset()) + i * 8,
                     kPanels * layout.arriving_lanes);
      }
      fence_barriers();
    }
    __syncthreads();
  }

  __device__ Ring(const WeightView& weight, const ExactRows& x, const Schedule& schedule,
                  const RingLayout& layout, const uint8_t* shared, int warp, int lane)
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
  __device__ RingChunk enter() {
    wait_for_phase(full_ + stage_ * 8, parity_);
    const uint8_t* const slots = shared_ + stage_ * layout_.stage_bytes();
    const RingChunk chunk = {slots + warp_ * layout_.slot_bytes,
                             shared_address(slots) + layout_.x_offset(), empty_ + stage_ * 8};
    if (++stage_ == layout_.stages) {
      stage_ = 0;
      parity_ ^= 1;
    }
    return chunk;
  }
  // Once for every chunk: copies one, if it is this warp's.
  __device__ void copy_ahead() { copy(index_++ + ahead()); }
  __device__ void leave(const RingChunk& chunk) const {
    __syncwarp();
    if (lane_ < layout_.arriving_lanes) arrive(chunk.empty);
  }

 private:
  // Two stages less than there are, so that a warp that copies need not wait for the slowest.
  __device__ int ahead() const { return layout_.stages - 2; }
  __device__ void copy(int index) {
    if (index % kPanels != warp_ || copies_.done()) return;
    const int round = index / layout_.stages, stage = index - round * layout_.stages;
    if (round > 0) wait_for_phase(empty_ + stage * 8, (round - 1) % 2);
    copies_.copy(weight_, x_, schedule_, layout_,
                 shared_address(shared_) + stage * layout_.stage_bytes(), full_ + stage * 8, lane_);
  }

  const WeightView& weight_;
  const ExactRows& x_;
  const Schedule& schedule_;
  const RingLayout& layout_;
  const uint8_t* shared_;
  uint32_t full_, empty_;
  int warp_, lane_;
  Copies copies_;
  int index_ = 0;  // of the chunk, among all of the block's
  int stage_ = 0, parity_ = 0;
};

}  // namespace micromix::kernels::cuda::hopper
