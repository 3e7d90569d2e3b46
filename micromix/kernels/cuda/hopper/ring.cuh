// What a block of Hopper's product works on (product.cuh), and the ring in shared memory by which
// it comes there.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/bulk_copy.cuh"
#include "micromix/kernels/cuda/divisor.h"
#include "micromix/kernels/cuda/packed_layout.h"
#include "micromix/kernels/cuda/segment_cursor.cuh"
#include "micromix/kernels/cuda/shared_barrier.cuh"
#include "micromix/kernels/cuda/tile_order.cuh"

namespace micromix::kernels::cuda::hopper {

// A tile of Y has kRows, 32, 64 or 128, of X, and kColumns of the weight. The block's threads: two
// warpgroups, whose warps have a panel of the weight each, and a third that copies and
// leaves its registers to the others.
inline constexpr int kPanels = 8;
inline constexpr int kColumns = kPanels * kPanel;  // rows of the weight
inline constexpr int kCopyWarps = 4;
inline constexpr int kThreads = (kPanels + kCopyWarps) * kLanes;
inline constexpr int kMultiplyRegisters = 232;  // of a thread
inline constexpr int kCopyRegisters = 40;
// A block has what its threads are launched with, a multiple of 8 each, and waits for more for
// ever.
static_assert(2 * kMultiplyRegisters + kCopyRegisters <= 3 * (65536 / kThreads / 8 * 8));

// Shared memory: the ring of chunks, each the panels' records and X's blocks; then where warps turn
// their outputs, 16 rows at a time, padded against conflicts; then barriers.
struct RingLayout {
  static constexpr int kMostStages = 12;
  static constexpr int kLeastStages = kCopyWarps;
  static constexpr int kTurnedStride = kPanel * 2 + 16;
  static constexpr int kTurnedBytes = 16 * kTurnedStride;  // of a warp

  int rows;  // of a tile
  int stages;
  int slot_bytes;      // of the largest record
  int arriving_lanes;  // of a warp that has read a chunk

  __host__ __device__ int x_offset() const { return kPanels * slot_bytes; }
  __host__ __device__ int stage_bytes() const { return x_offset() + rows * kChunk * 2; }
  __host__ __device__ int turned_offset() const { return stages * stage_bytes(); }
  __host__ __device__ int full_offset() const { return turned_offset() + kPanels * kTurnedBytes; }
  __host__ __device__ int empty_offset() const { return full_offset() + stages * 8; }
  __host__ __device__ int bytes() const { return empty_offset() + stages * 8; }
};

// So X's blocks begin at multiples of 512 (operand_of()).
static_assert(kPanels * record_bytes(mx::Format::kE2M1) % 512 == 0 &&
              kPanels * record_bytes(mx::Format::kE2M3) % 512 == 0 &&
              kPanels * record_bytes(mx::Format::kE4M3) % 512 == 0);

// What blocks take: shares of the first SHARED tiles, then whole ones in turn. Or, of a cluster in
// row Y of the grid, shares of tile Y.
struct Schedule {
  TileOrder tiles;
  int32_t shared;
  Divisor chunks;        // of a tile
  int32_t share_chunks;  // of the shared ones that every block takes, and
  int32_t extra;         // one more of the first blocks
  float* partials;       // [blocks][kPanels][kRows / 4][kLanes][4]
  uint32_t* counters;    // [blocks][kPanels]: whether they are there; zero between launches

  // Shares out CHUNKS_SHARED among BLOCKS: those of the first TILES_SHARED tiles, or, where
  // clusters share, of each tile.
  void share_out(int tiles_shared, int chunks_shared, int blocks) {
    shared = tiles_shared;
    share_chunks = chunks_shared / blocks;
    extra = chunks_shared % blocks;
  }
  // The first of the shared chunks that a block takes.
  __device__ int share(int block) const {
    return static_cast<int>(blockIdx.y) * chunks.value + block * share_chunks + min(block, extra);
  }
};

// The NUMBER-th of what this block works on: chunks BEGIN to END of a tile, which after the last is
// beyond all. Reckoned anew each time: there are no registers to keep more than the number.
struct Piece {
  int tile, begin, end;

  __device__ Piece(const Schedule& schedule, int number) {
    const int chunks = schedule.chunks.value;
    const int share = schedule.share(blockIdx.x), share_end = schedule.share(blockIdx.x + 1);
    const int first = share / schedule.chunks;
    const int parts = share < share_end ? (share_end - 1) / schedule.chunks - first + 1 : 0;
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

// A place in the ring, and the parity of its barriers' phase there.
struct RingStage {
  int stage = 0, parity = 0;

  // By so many CHUNKS, not more than STAGES.
  __device__ void advance(int stages, int chunks = 1) {
    stage += chunks;
    if (stage < stages) return;
    stage -= stages;
    parity ^= 1;
  }
};

// The ring's memory and barriers: of each stage one that says that its chunk is there, and one that
// it has been read.
class Ring {
 public:
  __device__ Ring(const RingLayout& layout, const uint8_t* shared)
      : layout(layout), shared_(shared), address_(shared_address(shared)) {}

  // By all threads of the block.
  __device__ void prepare() const {
    const auto stage = static_cast<int>(threadIdx.x);
    if (stage < layout.stages) {
      init_barrier(full(stage), 1);
      init_barrier(empty(stage), kPanels * layout.arriving_lanes);
      fence_barriers();
    }
    __syncthreads();
  }
  __device__ uint32_t full(int stage) const { return address_ + layout.full_offset() + stage * 8; }
  __device__ uint32_t empty(int stage) const {
    return address_ + layout.empty_offset() + stage * 8;
  }
  __device__ uint32_t address(int stage) const { return address_ + stage * layout.stage_bytes(); }
  __device__ const uint8_t* records(int stage) const {
    return shared_ + stage * layout.stage_bytes();
  }

  const RingLayout& layout;

 private:
  const uint8_t* shared_;
  uint32_t address_;
};

// Copies all that the block works on, every kCopyWarps-th chunk by a warp: the records, a lane
// each, and X's blocks, by two more. One warp alone would take longer than the products.
__device__ inline void copy_chunks(const WeightView& weight, const ExactRows& x,
                                   const Schedule& schedule, const Ring& ring, int warp, int lane) {
  const bool of_weight = lane < kPanels;
  const int block = lane - kPanels;  // of X
  const int tile_rows = ring.layout.rows;
  const uint32_t to = of_weight ? lane * ring.layout.slot_bytes
                                : ring.layout.x_offset() + block * tile_rows * kExactBlockBytes;
  RingStage place;
  place.advance(ring.layout.stages, warp);
  int skipped = warp;  // of the next piece's chunks
  for (int number = 0;; ++number) {
    const Piece piece(schedule, number);
    if (piece.tile >= schedule.tiles.count()) return;
    const Tile tile(schedule.tiles, piece.tile);
    const int64_t first_row = int64_t{tile.row} * tile_rows;
    const int rows_bytes =
        static_cast<int>(min(int64_t{tile_rows}, x.m - first_row)) * kExactBlockBytes;
    const int panel = min(tile.column * kPanels + lane, weight.panels - 1);
    const uint8_t* const rows =
        reinterpret_cast<const uint8_t*>(x.values) + (block * x.m + first_row) * kExactBlockBytes;
    int chunk = piece.begin + skipped;
    for (; chunk < piece.end; chunk += kCopyWarps) {
      const WeightView::Segment& segment = segment_of(weight, chunk);
      const int bytes = segment.record_bytes;
      const uint8_t* const from = of_weight
                                      ? record_of(weight, panel, segment, chunk)
                                      : rows + chunk * (x.m * kBlocksPerChunk * kExactBlockBytes);
      // Of the phase before the first, too, a barrier says that it is complete.
      wait_for_phase(ring.empty(place.stage), place.parity ^ 1);
      arrive_expecting(ring.full(place.stage), kPanels * bytes + kBlocksPerChunk * rows_bytes,
                       lane == 0);
      __syncwarp();
      copy_bulk(ring.address(place.stage) + to, from, of_weight ? bytes : rows_bytes,
                ring.full(place.stage), lane < kPanels + kBlocksPerChunk);
      place.advance(ring.layout.stages, kCopyWarps);
    }
    skipped = chunk - piece.end;
  }
}

// A chunk in the ring, as a warp sees it.
struct RingChunk {
  const uint8_t* record;  // of the warp's panel
  uint32_t rows;          // X's blocks
  uint32_t empty;         // the barrier that says that it has been read
};

// A warp's way through the ring.
class RingReader {
 public:
  __device__ RingReader(const Ring& ring, int warp, int lane)
      : ring_(ring), warp_(warp), lane_(lane) {}

  // The next chunk, once it is there.
  __device__ RingChunk enter() {
    wait_for_phase(ring_.full(place_.stage), place_.parity);
    const RingChunk chunk = {ring_.records(place_.stage) + warp_ * ring_.layout.slot_bytes,
                             ring_.address(place_.stage) + ring_.layout.x_offset(),
                             ring_.empty(place_.stage)};
    place_.advance(ring_.layout.stages);
    return chunk;
  }
  __device__ void leave(const RingChunk& chunk) const {
    __syncwarp();
    if (lane_ < ring_.layout.arriving_lanes) arrive(chunk.empty);
  }

 private:
  const Ring& ring_;
  int warp_, lane_;
  RingStage place_;
};

}  // namespace micromix::kernels::cuda::hopper
