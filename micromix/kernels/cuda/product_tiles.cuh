// The product for many rows of X: tiles of 128 rows of the weight by 32, 64 or 128 of X.
//
// Four warps, a panel each. Records and X's blocks of one chunk pass through a ring in shared
// memory; each record is expanded once, in registers, and meets all rows of X. Two blocks fit an
// SM: one's loads, barriers and expansion hide behind the other's products.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kTilePanels = 4;
inline constexpr int kTileThreads = kTilePanels * kLanes;
inline constexpr int kTileColumns = kTilePanels * kPanel;  // rows of the weight, columns of Y
inline constexpr int kTileStages = 4;

// Tiles of Y and the parts of K, in the order in which blocks take them: GROUP tiles along the
// weight by all along X, so that what blocks running together read fits the L2 cache.
struct TileGrid {
  int32_t column_tiles;
  int32_t row_tiles;
  int32_t group;
  int32_t slot_bytes;  // of the largest record
};

template <int kRows>
__host__ __device__ constexpr int tile_x_bytes() {
  return kRows * kChunk * 2;
}
template <int kRows>
__host__ __device__ int tile_stage_bytes(int slot_bytes) {
  return kTilePanels * slot_bytes + tile_x_bytes<kRows>();
}
// Y's tile waits in shared memory to be written in whole lines, its rows padded against conflicts.
inline constexpr int kTileStride = kTileColumns + 8;

// Goes through chunks, knowing the segment of each.
struct SegmentCursor {
  int segment = 0;
  int end;  // of its chunks
  mx::Format format;

  __device__ SegmentCursor(const WeightView& weight, int chunk) {
    enter(weight);
    move_to(weight, chunk);
  }
  __device__ void move_to(const WeightView& weight, int chunk) {
    while (chunk >= end) {
      ++segment;
      enter(weight);
    }
  }

 private:
  __device__ void enter(const WeightView& weight) {
    format = weight.segments[segment].format;
    end = weight.segments[segment].first_chunk + weight.segments[segment].chunks;
  }
};

// This thread's copies to the ring, a chunk at a time: of its warp's records and of X. A panel's
// records are consecutive bytes. Addresses move on before a chunk's copies, not after: a copy reads
// its address some time after it is issued, and an addition would wait for that.
template <int kRows>
class TileCopies {
 public:
  __device__ TileCopies(const WeightView& weight, const ExactRows& x, const TileGrid& tiles,
                        int panel, int64_t first_x_row, int first_chunk, uint32_t ring)
      : at_(weight, first_chunk), chunk_bytes_(x.m * 64 * kBlocksPerChunk) {
    const int lane = threadIdx.x % kLanes;
    record_shared_ = ring + threadIdx.x / kLanes * tiles.slot_bytes + lane * 16;
    // Panels beyond the weight's end repeat its last.
    const WeightView::Segment& segment = weight.segments[at_.segment];
    record_ = weight.records + min(panel, weight.panels - 1) * weight.panel_bytes + segment.offset +
              int64_t{first_chunk - segment.first_chunk} * record_bytes(segment.format) + lane * 16;
    x_shared_ = ring + kTilePanels * tiles.slot_bytes + threadIdx.x * 16;
    const int row = threadIdx.x / 4;
    rows_left_ = static_cast<int>(min(int64_t{kRows}, x.m - first_x_row)) - row;
    x_[0] = reinterpret_cast<const uint8_t*>(x.values) + (first_chunk - 1) * chunk_bytes_ +
            (first_x_row + row) * 64 + threadIdx.x % 4 * 16;
    x_[1] = x_[0] + x.m * 64;
  }

  // The next chunk, CHUNK, to the stage at STAGE bytes.
  __device__ void copy_record(const WeightView& weight, int chunk, int stage) {
    record_ += last_bytes_;
    at_.move_to(weight, chunk);
    last_bytes_ = record_bytes(at_.format);
    const uint32_t to = record_shared_ + stage;
    const bool six = at_.format != mx::Format::kE2M1;
    const bool eight = at_.format == mx::Format::kE4M3;
    // Whole rounds of a warp, and the scales, which four lanes copy.
    copy_async_at<0, 0>(to, record_, true);
    copy_async_at<512, 512>(to, record_, true);
    copy_async_at<1024, 1024>(to, record_, six || threadIdx.x % kLanes < 4);
    copy_async_at<1536, 1536>(to, record_, eight || (six && threadIdx.x % kLanes < 4));
    copy_async_at<2048, 2048>(to, record_, eight && threadIdx.x % kLanes < 4);
  }
  __device__ void copy_x(int stage) {
    const uint32_t to = x_shared_ + stage;
    x_[0] += chunk_bytes_;
    x_[1] += chunk_bytes_;
    copy_rows<0>(to, x_[0]);
    copy_rows<kRows * 64>(to, x_[1]);
  }

 private:
  template <int offset>
  __device__ void copy_rows(uint32_t to, const uint8_t* x) {
    copy_async_or_zeros<offset, 0>(to, x, rows_left_ > 0 ? 16 : 0);
    if constexpr (kRows >= 64) {
      copy_async_or_zeros<offset + 2048, 2048>(to, x, rows_left_ > 32 ? 16 : 0);
    }
    if constexpr (kRows == 128) {
      copy_async_or_zeros<offset + 4096, 4096>(to, x, rows_left_ > 64 ? 16 : 0);
      copy_async_or_zeros<offset + 6144, 6144>(to, x, rows_left_ > 96 ? 16 : 0);
    }
  }

  SegmentCursor at_;
  uint32_t record_shared_, x_shared_;
  int rows_left_;
  int last_bytes_ = 0;  // of the record before
  const uint8_t* record_;
  const uint8_t* x_[kBlocksPerChunk];
  int64_t chunk_bytes_;
};

template <int kRows>
__global__ void __launch_bounds__(kTileThreads, 2)
    multiply_tiles(const __grid_constant__ WeightView weight, const ExactRows x, __nv_bfloat16* y,
                   const SplitK split, const TileGrid tiles) {
  extern __shared__ __align__(16) uint8_t shared[];
  constexpr int kTiles = kRows / 8;
  const int lane = threadIdx.x % kLanes;
  const int warp = threadIdx.x / kLanes;
  const int stage_bytes = tile_stage_bytes<kRows>(tiles.slot_bytes);

  allow_next_grid();
  const int tile = blockIdx.x;
  const int group_tiles = tiles.group * tiles.row_tiles;
  const int group_first = tile / group_tiles * tiles.group;
  const int group = min(tiles.group, tiles.column_tiles - group_first);
  const int column_tile = group_first + tile % group_tiles % group;
  const int64_t first_x_row = int64_t{tile % group_tiles / group} * kRows;
  const auto [begin, end] = PartOfK(split, blockIdx.y);

  TileCopies<kRows> copies(weight, x, tiles, column_tile * kTilePanels + warp, first_x_row, begin,
                           shared_address(shared));
  // Weights do not depend on the grid ahead.
  for (int i = 0; i < kTileStages - 1; ++i) {
    if (begin + i < end) copies.copy_record(weight, begin + i, i * stage_bytes);
  }
  wait_for_previous_grid();
  for (int i = 0; i < kTileStages - 1; ++i) {
    if (begin + i < end) copies.copy_x(i * stage_bytes);
    commit_copies();
  }

  float sums[2][kTiles][4] = {};
  SegmentCursor at(weight, begin);
  int stage = 0;
  for (int chunk = begin; chunk < end; ++chunk) {
    wait_for_copies<kTileStages - 2>();
    __syncthreads();  // of all threads; and the stage before this one has been read
    at.move_to(weight, chunk);
    const uint8_t* const slots = shared + stage * stage_bytes;
    const uint8_t* const blocks = slots + kTilePanels * tiles.slot_bytes + lane * 16;
    const auto rows = [blocks](int block, int tile8) {
      return *reinterpret_cast<const uint4*>(blocks + (block * kRows + tile8 * 8) * 64);
    };
    const auto copy_ahead = [&] {
      if (chunk + kTileStages - 1 < end) {
        const int filled = (stage == 0 ? kTileStages - 1 : stage - 1) * stage_bytes;
        copies.copy_record(weight, chunk + kTileStages - 1, filled);
        copies.copy_x(filled);
      }
      commit_copies();
    };
    multiply_record<kTiles>(at.format, slots + warp * tiles.slot_bytes, lane, rows, copy_ahead,
                            sums);
    stage = stage == kTileStages - 1 ? 0 : stage + 1;
  }

  if (split.parts > 1) {
    constexpr int kSums = 8 * kTiles;
    float* const of_tile =
        split.partials + int64_t{tile} * split.parts * kSums * kTileThreads + threadIdx.x;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      of_tile[(blockIdx.y * kSums + i) * kTileThreads] = (&sums[0][0][0])[i];
    }
    __shared__ bool last;
    if (!is_last_part(split, tile, last)) return;
#pragma unroll
    for (int i = 0; i < kSums; ++i) (&sums[0][0][0])[i] = 0;
    for (int part = 0; part < split.parts; ++part) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        (&sums[0][0][0])[i] += of_tile[(part * kSums + i) * kTileThreads];
      }
    }
  }

  const int64_t first_column = int64_t{column_tile} * kTileColumns;
  // Of this thread's sums on one of its four rows of the weight, and their rows of X.
  const auto column = [&](int side) { return warp * kPanel + side * 8 + lane / 4; };
  const auto row = [&](int i) { return i / 2 * 8 + lane % 4 * 2 + i % 2; };
  RowEnd ends[4];
  bool special = false;
#pragma unroll
  for (int side = 0; side < 4; ++side) {
    ends[side] = RowEnd(weight, min(first_column + column(side), weight.n - 1));
    special |= ends[side].needs_oracle();
  }
  if (threadIdx.x < kRows && first_x_row + threadIdx.x < x.m) {
    special |= x.special[first_x_row + threadIdx.x] != 0;
  }
  const bool any_special = __syncthreads_or(special) != 0;  // and the ring has been read
  auto* const staged = reinterpret_cast<__nv_bfloat16*>(shared);
#pragma unroll
  for (int side = 0; side < 4; ++side) {
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      staged[row(i) * kTileStride + column(side)] =
          ends[side].finish(sums[side / 2][i / 2][side % 2 * 2 + i % 2]);
    }
  }
  if (any_special) {
#pragma unroll 1
    for (int each = 0; each < 8 * kTiles; ++each) {
      const int64_t x_row = first_x_row + row(each % (2 * kTiles));
      const int64_t y_column = first_column + column(each / (2 * kTiles));
      if (x_row < x.m && y_column < weight.n &&
          (RowEnd(weight, y_column).needs_oracle() || x.special[x_row] != 0)) {
        staged[row(each % (2 * kTiles)) * kTileStride + column(each / (2 * kTiles))] =
            oracle_output(weight, x, x_row, y_column);
      }
    }
  }
  __syncthreads();
  const auto columns = static_cast<int>(min(int64_t{kTileColumns}, weight.n - first_column));
  const auto rows_here = static_cast<int>(min(int64_t{kRows}, x.m - first_x_row));
  __nv_bfloat16* const corner = y + first_x_row * weight.n + first_column;
  if (weight.n % 8 == 0) {
    constexpr int kPieces = kTileColumns / 8;
    for (int i = threadIdx.x; i < rows_here * kPieces; i += kTileThreads) {
      const int down = i / kPieces, across = i % kPieces * 8;
      if (across < columns) {
        *reinterpret_cast<uint4*>(corner + down * weight.n + across) =
            *reinterpret_cast<const uint4*>(staged + down * kTileStride + across);
      }
    }
  } else {
    for (int i = threadIdx.x; i < rows_here * kTileColumns; i += kTileThreads) {
      const int down = i / kTileColumns, across = i % kTileColumns;
      if (across < columns) corner[down * weight.n + across] = staged[down * kTileStride + across];
    }
  }
}

}  // namespace micromix::kernels::cuda
