// The product for up to 128 rows of X, and for more where product_large.cuh's cannot run: tiles of
// 128 rows of the weight by 32, 64 or 128 of X.
//
// Four warps, a panel each. Records and X's blocks of one chunk pass through a ring in shared
// memory (tile_copies.cuh); each record is expanded once, in registers, and meets all rows of X.
// Two blocks fit an SM: one's barriers and expansion hide behind the other's products.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/tile_copies.cuh"
#include "micromix/kernels/cuda/tile_order.cuh"

namespace micromix::kernels::cuda {

// Y's tile waits in shared memory to be written in whole lines, its rows padded against conflicts.
inline constexpr int kTileStride = kTileColumns + 8;

template <int kRows>
__global__ void __launch_bounds__(kTileThreads, 2)
    multiply_tiles(const __grid_constant__ WeightView weight, const ExactRows x, __nv_bfloat16* y,
                   const SplitK split, const TileOrder tiles, const int slot_bytes) {
  uint8_t* const shared = dynamic_shared();
  constexpr int kTiles = kRows / 8;
  const int lane = threadIdx.x % kLanes;
  const int warp = threadIdx.x / kLanes;
  const int stage_bytes = tile_stage_bytes<kRows>(slot_bytes);

  allow_next_grid();
  const int tile = blockIdx.x;
  const Tile at_tile(tiles, tile);
  const int64_t first_x_row = int64_t{at_tile.row} * kRows;
  const auto [begin, end] = PartOfK(split, blockIdx.y);

  TileCopies<kRows> copies(weight, x, slot_bytes, at_tile.column * kTilePanels + warp, first_x_row,
                           begin, shared_address(shared));
  // Weights do not depend on the grid ahead.
  for (int i = 0; i < kTileStages - 1; ++i) {
    if (begin + i < end) copies.copy_record(weight, begin + i);
  }
  wait_for_previous_grid();
  for (int i = 0; i < kTileStages - 1; ++i) {
    if (begin + i < end) copies.copy_x();
    copies.commit();
  }

  float sums[2][kTiles][4] = {};
  SegmentCursor at(weight, begin);
  TilePlace place;
  for (int chunk = begin; chunk < end; ++chunk) {
    copies.wait();
    at.move_to(weight, chunk);
    const uint8_t* const slots = shared + place.stage * stage_bytes;
    const uint8_t* const blocks = slots + kTilePanels * slot_bytes + lane * 16;
    const auto rows = [blocks](int block, int tile8) {
      return *reinterpret_cast<const uint4*>(blocks + (block * kRows + tile8 * 8) * 64);
    };
    const auto copy_ahead = [&] {
      if (chunk + kTileStages - 1 < end) {
        copies.copy_record(weight, chunk + kTileStages - 1);
        copies.copy_x();
      }
      copies.commit();
    };
    multiply_record<kTiles>(at.format, slots + warp * slot_bytes, lane, rows, copy_ahead, sums);
    place.advance();
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

  const int64_t first_column = int64_t{at_tile.column} * kTileColumns;
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
