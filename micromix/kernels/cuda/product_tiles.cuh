// The product for many rows of X: tiles of 128 rows of the weight by 32, 64 or 128 of X.
//
// Eight warps, four along the weight (a panel each) by two along X. Records and X's blocks of one
// chunk pass through a ring in shared memory that all warps share; weights are expanded in
// registers, so each record is by two warps. Two blocks fit an SM: one's loads and barriers hide
// behind the other's products.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kTileThreads = 256;
inline constexpr int kTilePanels = 4;
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

template <int kRows>
__global__ void __launch_bounds__(kTileThreads, 2)
    multiply_tiles(const __grid_constant__ WeightView weight, const ExactRows x, __nv_bfloat16* y,
                   const SplitK split, const TileGrid tiles) {
  extern __shared__ __align__(16) uint8_t shared[];
  constexpr int kTiles = kRows / 16;  // of 8 rows of X, a warp
  const int lane = threadIdx.x % kLanes;
  const int warp = threadIdx.x / kLanes;
  const int warp_panel = warp % kTilePanels;
  const int warp_rows = warp / kTilePanels * (kRows / 2);
  const int stage_bytes = tile_stage_bytes<kRows>(tiles.slot_bytes);

  allow_next_grid();
  const int tile = blockIdx.x;
  const int group_tiles = tiles.group * tiles.row_tiles;
  const int group_first = tile / group_tiles * tiles.group;
  const int group = min(tiles.group, tiles.column_tiles - group_first);
  const int column_tile = group_first + tile % group_tiles % group;
  const int64_t first_x_row = int64_t{tile % group_tiles / group} * kRows;
  const auto [begin, end] = PartOfK(split, blockIdx.y);

  int copy_segment = 0;
  const auto copy_records = [&](int chunk) {
    while (copy_segment + 1 < weight.segment_count &&
           chunk >= weight.segments[copy_segment + 1].first_chunk) {
      ++copy_segment;
    }
    const WeightView::Segment& segment = weight.segments[copy_segment];
    const int bytes = record_bytes(segment.format);
    uint8_t* const stage = shared + (chunk - begin) % kTileStages * stage_bytes;
    // Two warps a panel; panels beyond the weight's end repeat its last.
    const int panel = min(column_tile * kTilePanels + warp_panel, weight.panels - 1);
    const uint8_t* const record = weight.records + panel * weight.panel_bytes + segment.offset +
                                  int64_t{chunk - segment.first_chunk} * bytes;
    const int from = (warp / kTilePanels * kLanes + lane) * 16;
    for (int i = from; i < bytes; i += 2 * kLanes * 16) {
      copy_async(stage + warp_panel * tiles.slot_bytes + i, record + i);
    }
  };
  const auto copy_x = [&](int chunk) {
    uint8_t* const stage =
        shared + (chunk - begin) % kTileStages * stage_bytes + kTilePanels * tiles.slot_bytes;
#pragma unroll
    for (int i = 0; i < tile_x_bytes<kRows>() / 16 / kTileThreads; ++i) {
      const int piece = i * kTileThreads + threadIdx.x;  // [block][row][4]
      const int64_t row = first_x_row + piece / 4 % kRows;
      const int64_t block = int64_t{chunk} * kBlocksPerChunk + piece / (4 * kRows);
      const bool inside = row < x.m;
      const __nv_bfloat16* const from =
          x.values + (block * x.m + (inside ? row : 0)) * mx::kBlockSize + piece % 4 * 8;
      copy_async(stage + piece * 16, from, inside);
    }
  };
  // Weights do not depend on the grid ahead.
  for (int i = 0; i < kTileStages - 1; ++i) {
    if (begin + i < end) copy_records(begin + i);
  }
  wait_for_previous_grid();
  for (int i = 0; i < kTileStages - 1; ++i) {
    if (begin + i < end) copy_x(begin + i);
    commit_copies();
  }

  float sums[2][kTiles][4] = {};
  int segment = 0;
  for (int chunk = begin; chunk < end; ++chunk) {
    wait_for_copies<kTileStages - 2>();
    __syncthreads();  // of all threads; and the stage before this one has been read
    if (chunk + kTileStages - 1 < end) {
      copy_records(chunk + kTileStages - 1);
      copy_x(chunk + kTileStages - 1);
    }
    commit_copies();
    while (segment + 1 < weight.segment_count &&
           chunk >= weight.segments[segment + 1].first_chunk) {
      ++segment;
    }
    const uint8_t* const stage = shared + (chunk - begin) % kTileStages * stage_bytes;
    const uint8_t* const blocks =
        stage + kTilePanels * tiles.slot_bytes + (warp_rows * 4 + lane) * 16;
    const auto rows = [blocks](int block, int tile8) {
      return *reinterpret_cast<const uint4*>(blocks + (block * kRows + tile8 * 8) * 64);
    };
    multiply_record<kTiles>(weight.segments[segment].format, stage + warp_panel * tiles.slot_bytes,
                            lane, rows, sums);
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
    if (!is_last_part(split, tile, threadIdx.x == 0, last, [] { __syncthreads(); })) return;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      float sum = 0;
      for (int each = 0; each < split.parts; ++each) {
        sum += of_tile[(each * kSums + i) * kTileThreads];
      }
      (&sums[0][0][0])[i] = sum;
    }
  }

  __syncthreads();  // the ring has been read
  auto* const staged = reinterpret_cast<__nv_bfloat16*>(shared);
  const int64_t first_column = int64_t{column_tile} * kTileColumns;
  // Of the I-th of this thread's sums on one of its four rows of the weight.
  const auto column = [&](int side) { return warp_panel * kPanel + side * 8 + lane / 4; };
  const auto row = [&](int i) { return warp_rows + i / 2 * 8 + lane % 4 * 2 + i % 2; };
  bool special = false;
#pragma unroll
  for (int side = 0; side < 4; ++side) {
    if (first_column + column(side) >= weight.n) continue;
    const RowEnd end_of_row(weight, first_column + column(side));
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      if (first_x_row + row(i) >= x.m) continue;
      staged[row(i) * kTileStride + column(side)] =
          end_of_row.finish(sums[side / 2][i / 2][side % 2 * 2 + i % 2]);
      special |= end_of_row.needs_oracle() || x.special[first_x_row + row(i)] != 0;
    }
  }
  if (special) {
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
