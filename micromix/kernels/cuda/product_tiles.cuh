// The product for more rows of X than product_few.cuh takes; on Hopper only where its own does not
// gain (hopper/product.h), or where asked. Tiles of 128 rows of the weight by 32, 64 or 128 of X.
//
// Four warps, a panel each. Records and X's blocks of one chunk pass through a ring in shared
// memory (tile_copies.cuh); each record is expanded once, in registers, and meets all rows of X.
// Two blocks fit an SM: one's barriers and expansion hide behind the other's products. Where tiles
// are few, blocks share them by parts of K: a cluster, of which each adds and writes some of the
// rows (sm_90), or through global memory, where the last adds all.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/tile_copies.cuh"
#include "micromix/kernels/cuda/tile_order.cuh"
#include "micromix/kernels/cuda/tile_parts.cuh"

namespace micromix::kernels::cuda {

struct TileJob {
  TileOrder order;
  int32_t slot_bytes;  // of the largest record
};

template <int kRows>
__global__ void __launch_bounds__(kTileThreads, 2)
    multiply_tiles(const __grid_constant__ WeightView weight, const ExactRows x, __nv_bfloat16* y,
                   const SplitK split, const TileJob job) {
  uint8_t* const shared = dynamic_shared();
  constexpr int kTiles = kRows / 8;
  const int lane = threadIdx.x % kLanes;
  const int warp = threadIdx.x / kLanes;
  const int stage_bytes = tile_stage_bytes<kRows>(job.slot_bytes);

  allow_next_grid();
  const int tile = blockIdx.x;
  const Tile at_tile(job.order, tile);
  const int64_t first_x_row = int64_t{at_tile.row} * kRows;
  const auto [begin, end] = PartOfK(split, blockIdx.y);

  TileCopies<kRows> copies(weight, x, job.slot_bytes, at_tile.column * kTilePanels + warp,
                           first_x_row, begin, shared_address(shared));
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
    const uint32_t blocks =
        shared_address(slots) + kTilePanels * job.slot_bytes + exact_rows_at(lane % 8, lane);
    const auto rows = [blocks](int block, int tile8) {
      return load_exact_rows(blocks + (block * kRows + tile8 * 8) * kExactBlockBytes);
    };
    const auto copy_ahead = [&] {
      if (chunk + kTileStages - 1 < end) {
        copies.copy_record(weight, chunk + kTileStages - 1);
        copies.copy_x();
      }
      copies.commit();
    };
    with_format(at.format, [&]<mx::Format format>() {
      multiply_record<format, kTiles>(slots + warp * job.slot_bytes, lane, rows, copy_ahead, sums);
    });
    place.advance();
  }

  const auto rows = static_cast<int>(min(int64_t{kRows}, x.m - first_x_row));
  const auto writer = [&](int rank, int ranks) {
    const int64_t first_column = int64_t{at_tile.column} * kTileColumns;
    return TileWriter<kTileColumns, kTilePanels>(
        weight, x, y, TileRows(first_x_row, first_column, rows, rank, ranks), warp, lane);
  };
  if (split.partials != nullptr) {
    constexpr int kSums = kTileSums<kRows, kTileColumns>;
    float* const of_tile = split.partials + int64_t{tile} * split.parts * kSums;
    store_sums<kTileColumns>(of_tile + blockIdx.y * kSums, warp, lane, sums);
    if (!is_last_part(split, tile)) return;
    const auto of_all = writer(0, 1);
    return of_all.template write<8>(PartsInMemory{of_tile, kSums}, split.parts, of_all.load_ends());
  }
  auto* const own = reinterpret_cast<float*>(shared);
  __syncthreads();  // the ring has been read
  store_sums<kTileColumns>(own, warp, lane, sums);
  if (split.parts == 1) {
    __syncthreads();
    const auto of_all = writer(0, 1);
    return of_all.template write<1>(PartsInMemory{own, 0}, 1, of_all.load_ends());
  }
  const ClusterPeers peers{split.parts};
  const auto of_block = writer(peers.rank(), peers.count());
  const auto ends = of_block.load_ends();
  peers.synchronize();
  of_block.write(PartsOfCluster{own}, peers.count(), ends);
  peers.end();
}

}  // namespace micromix::kernels::cuda
