// The product for many rows of X on Hopper: tiles of 256 rows of the weight by 32, 64 or 128 of X.
//
// A block has an SM and stays. Two warpgroups, a panel of the weight a warp, go through a ring of
// chunks in shared memory that runs ahead over tiles. Warps expand a block of their panel in
// registers while the tensor cores multiply the block before, by X as it lies in shared memory. On
// the way the warpgroups never meet: a warp waits until a chunk is there, says when it has been
// read, and writes its part of the outputs alone. A third warpgroup copies.
//
// Tiles seldom come out even over SMs. Where it gains, the first tiles, at most two an SM, are
// therefore one row of chunks of which every block takes an equal share (stream-K), and whole tiles
// follow, the same number for every block. Where a share begins inside a tile, the block leaves its
// sums in memory for the block in which that tile begins, which waits for them. That ends, for all
// blocks run at once, and each waits for such behind it alone, which leave theirs before they wait.
// Where tiles are at most half as many as SMs, and it is reckoned to be quicker, each is a
// cluster's, whose blocks share it by parts of K and add them through shared memory.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/hopper/ring.cuh"
#include "micromix/kernels/cuda/hopper/wgmma.cuh"
#include "micromix/kernels/cuda/named_barrier.cuh"
#include "micromix/kernels/cuda/tile_parts.cuh"

namespace micromix::kernels::cuda::hopper {

// A lane's, [half of the panel].
template <int kRows>
using TileSums = float[2][kRows / 8][4];

// Begins a block's products: of the warpgroup's panels, A [half][step] of the warp's, by X at ROWS.
template <int kRows>
__device__ void begin_block(TileSums<kRows>& sums, uint32_t (&a)[2][2][4], uint32_t rows) {
  pin_registers(sums);
  pin_registers(a);
  fence_registers();
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint64_t b = operand_of(rows + step * kProductDepth * 2);
    begin_product(sums[0], a[0][step], b);
    begin_product(sums[1], a[1][step], b);
  }
  commit_products();
}

// The products of the next CHUNKS, one at least, of one format. Each block is expanded while the
// one before is multiplied.
template <int kRows, mx::Format format>
__device__ void multiply_chunks(int chunks, int lane, RingReader& ring, TileSums<kRows>& sums) {
  RingChunk at = ring.enter();
  uint2 scales = load_scales<format>(at.record, lane);
  uint32_t first[2][2][4];  // [half][step]
  expand_block<format, 0>(UnreadWords<format>{at.record, 0, lane}, scales, first);
  BlockWords<format> words(UnreadWords<format>{at.record, 1, lane});
  for (;;) {
    begin_block<kRows>(sums, first, at.rows);
    uint32_t second[2][2][4];
    expand_block<format, 1>(words, scales, second);
    begin_block<kRows>(sums, second, at.rows + kRows * kExactBlockBytes);
    const RingChunk before = at;
    const bool last = --chunks == 0;
    if (!last) {
      at = ring.enter();
      scales = load_scales<format>(at.record, lane);
      const BlockWords<format> next(UnreadWords<format>{at.record, 0, lane});
      words = BlockWords<format>(UnreadWords<format>{at.record, 1, lane});
      wait_for_products<1>();
      expand_block<format, 0>(next, scales, first);
    }
    wait_for_products<0>();
    pin_registers(sums);
    ring.leave(before);
    if (last) return;
  }
}

// Where a warp leaves sums for the block that has the tile's beginning: [kRows / 4][lane][4].
template <int kRows>
__device__ float4* left_sums(const Schedule& schedule, int unit, int lane) {
  return reinterpret_cast<float4*>(schedule.partials) + int64_t{unit} * (kRows / 4) * kLanes + lane;
}

template <int kRows>
__device__ void leave_sums(const Schedule& schedule, int warp, int lane,
                           const TileSums<kRows>& sums) {
  const int unit = static_cast<int>(blockIdx.x) * kPanels + warp;
  float4* const to = left_sums<kRows>(schedule, unit, lane);
#pragma unroll
  for (int i = 0; i < kRows / 4; ++i) {
    const float(&four)[4] = sums[i / (kRows / 8)][i % (kRows / 8)];
    to[i * kLanes] = {four[0], four[1], four[2], four[3]};
  }
  __syncwarp();
  if (lane == 0) announce_part(schedule.counters, unit);
}

// Adds what the blocks behind left of TILE, in their order. All lanes wait, though one could for
// all: after a loop of one lane the compiler takes no warp to be in step again.
template <int kRows>
__device__ void add_left_sums(const Schedule& schedule, int tile, int warp, int lane,
                              TileSums<kRows>& sums) {
  const int end = (tile + 1) * schedule.chunks.value;
  for (int block = blockIdx.x + 1; schedule.share(block) < end; ++block) {
    const int unit = block * kPanels + warp;
    await_parts(schedule.counters, unit, 1);
    __syncwarp();
    if (lane == 0) schedule.counters[unit] = 0;
    const float4* const from = left_sums<kRows>(schedule, unit, lane);
#pragma unroll
    for (int i = 0; i < kRows / 4; ++i) {
      const float4 four = from[i * kLanes];
      float(&to)[4] = sums[i / (kRows / 8)][i % (kRows / 8)];
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

// What makes a warp's outputs from sums: its panel's rows, those of the tile where it is, and what
// a lane needs of them. Loaded before the sums are there.
template <int kRows>
struct PanelEnd {
  int64_t first_row, first_column;
  RowEnd of_side[4];
  bool any_special;  // row of X or of the weight

  __device__ PanelEnd(const WeightView& weight, const ExactRows& x, const Tile& at, int warp,
                      int lane)
      : first_row(int64_t{at.row} * kRows),
        first_column(int64_t{at.column} * kColumns + warp * kPanel) {
    bool special = false;
#pragma unroll
    for (int side = 0; side < 4; ++side) {
      of_side[side] = RowEnd(weight, min(first_column + side * 8 + lane / 4, weight.n - 1));
      special |= of_side[side].needs_oracle();
    }
#pragma unroll
    for (int i = 0; i < kRows; i += kLanes) {
      special |= x.special[min(first_row + i + lane, x.m - 1)] != 0;
    }
    any_special = __any_sync(~0u, special);
  }
};

// A warp's outputs of a tile: those of its panel.
template <int kRows>
__device__ void write_panel(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                            const PanelEnd<kRows>& end, int lane, uint8_t* turned,
                            const TileSums<kRows>& sums) {
  constexpr int kStride = RingLayout::kTurnedStride;
  const auto& [first_row, first_column, ends, any_special] = end;
  if (first_column >= weight.n) return;
  const int64_t column = first_column + lane % 4 * 8;  // the first of eight that the lane writes
#pragma unroll
  for (int first = 0; first < kRows / 8; first += 2) {
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
  for (int i = lane; i < kRows * kPanel; i += kLanes) {
    const int64_t x_row = first_row + i / kPanel, y_column = first_column + i % kPanel;
    if (x_row < x.m && y_column < weight.n &&
        (RowEnd(weight, y_column).needs_oracle() || x.special[x_row] != 0)) {
      y[x_row * weight.n + y_column] = oracle_output(weight, x, x_row, y_column);
    }
  }
  __syncwarp();
}

// A warp's sums of a piece.
template <int kRows>
__device__ void multiply_piece(const WeightView& weight, const Piece& piece, int lane,
                               RingReader& ring, TileSums<kRows>& sums) {
  SegmentCursor segment(weight, piece.begin);
  for (int chunk = piece.begin; chunk < piece.end;) {
    segment.move_to(weight, chunk);
    const int chunks = min(piece.end, segment.end) - chunk;
    with_format(segment.format, [&]<mx::Format format>() {
      multiply_chunks<kRows, format>(chunks, lane, ring, sums);
    });
    chunk += chunks;
  }
}

// Makes the block's ring, in which the third warpgroup then copies. True in the others.
__device__ inline bool enter_ring(const WeightView& weight, const ExactRows& x,
                                  const Schedule& schedule, const Ring& ring, int warp, int lane) {
  allow_next_grid();
  ring.prepare();
  wait_for_previous_grid();
  if (warp >= kPanels) {
    give_registers<kCopyRegisters>();
    copy_chunks(weight, x, schedule, ring, warp - kPanels, lane);
    return false;
  }
  take_registers<kMultiplyRegisters>();
  return true;
}

// The same in all lanes, and known to be.
__device__ inline int warp_of_block() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x / kLanes), 0);
}

// Blocks that stay, and share tiles through memory if at all.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_tiles(const __grid_constant__ WeightView weight, const __grid_constant__ ExactRows x,
                   __nv_bfloat16* y, const __grid_constant__ Schedule schedule,
                   const __grid_constant__ RingLayout layout) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  uint8_t* const shared = dynamic_shared();
  const int warp = warp_of_block(), lane = threadIdx.x % kLanes;
  const Ring in_memory(layout, shared);
  if (!enter_ring(weight, x, schedule, in_memory, warp, lane)) return;
  RingReader ring(in_memory, warp, lane);
  for (int number = 0;; ++number) {
    TileSums<kRows> sums = {};
    const Piece piece(schedule, number);
    if (piece.tile >= schedule.tiles.count()) return;
    const PanelEnd<kRows> end(weight, x, Tile(schedule.tiles, piece.tile), warp, lane);
    multiply_piece<kRows>(weight, piece, lane, ring, sums);
    if (piece.begin > 0) {
      leave_sums<kRows>(schedule, warp, lane, sums);
      continue;
    }
    if (piece.end < schedule.chunks.value) {
      add_left_sums<kRows>(schedule, piece.tile, warp, lane, sums);
    }
    write_panel<kRows>(weight, x, y, end, lane,
                       shared + layout.turned_offset() + warp * RingLayout::kTurnedBytes, sums);
  }
#else
  __trap();
#endif
}

// Clusters that have a tile each, of which a block has a part of K and writes some rows.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_shared_tile(const __grid_constant__ WeightView weight,
                         const __grid_constant__ ExactRows x, __nv_bfloat16* y,
                         const __grid_constant__ Schedule schedule,
                         const __grid_constant__ RingLayout layout) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  uint8_t* const shared = dynamic_shared();
  const int warp = warp_of_block(), lane = threadIdx.x % kLanes;
  const Ring in_memory(layout, shared);
  if (!enter_ring(weight, x, schedule, in_memory, warp, lane)) return;
  RingReader ring(in_memory, warp, lane);
  TileSums<kRows> sums = {};
  const Piece piece(schedule, 0);
  const Tile tile(schedule.tiles, piece.tile);
  const ClusterPeers peers{static_cast<int>(gridDim.x)};
  const int64_t first_row = int64_t{tile.row} * kRows;
  const TileRows rows(first_row, int64_t{tile.column} * kColumns,
                      static_cast<int>(min(int64_t{kRows}, x.m - first_row)), peers.rank(),
                      peers.count());
  multiply_piece<kRows>(weight, piece, lane, ring, sums);
  const TileWriter<kColumns, kPanels> writer(weight, x, y, rows, warp, lane);
  const auto ends = writer.load_ends();
  auto* const own = reinterpret_cast<float*>(shared);
  NamedBarrier<1, kPanels * kLanes>::wait();  // the ring has been read
  store_sums<kColumns>(own, warp, lane, sums);
  peers.synchronize();
  writer.write(PartsOfCluster{own}, peers.count(), ends);
  peers.end();
#else
  __trap();
#endif
}

}  // namespace micromix::kernels::cuda::hopper
