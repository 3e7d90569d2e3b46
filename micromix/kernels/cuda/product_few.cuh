// The product for at most 16 rows of X, which is a read of the weight.
//
// A block keeps the rows of X (of its part of K) in shared memory and goes through panels of the
// weight. Its warps share a panel's chunks in turn: a warp streams the records of its own chunks
// through its own ring of shared memory and reads only X's blocks that they meet, so that warps
// need no barrier but the one that adds their sums, once a panel. Copies run ahead over panels.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kFewWarps = 16;
inline constexpr int kFewThreads = kFewWarps * kLanes;
inline constexpr int kFewStages = 3;  // records a warp has under way
inline constexpr int kFewRows = 16;   // of X at most

// Bytes of X that meet one record: [block][row][32] BF16.
__host__ __device__ inline int x_chunk_bytes(int64_t m) {
  return static_cast<int>(m) * kChunk * 2;
}

// Shared memory: per warp a ring of records and its blocks of X, then sums of all warps.
struct FewLayout {
  int slot_bytes;   // of the largest record
  int warp_chunks;  // of X that a warp keeps
  int x_bytes;      // of each

  __host__ __device__ int warp_bytes() const {
    return kFewStages * slot_bytes + warp_chunks * x_bytes;
  }
  __host__ __device__ int sums_offset() const { return kFewWarps * warp_bytes(); }
  // TILES of 8 rows of X.
  __host__ __device__ int bytes(int tiles) const {
    return sums_offset() + kFewWarps * tiles * kPanel * 8 * 4;
  }
};

// A place in the records of one warp: chunks FIRST, FIRST + kFewWarps, ... below END of every
// STRIDE-th panel.
struct RecordCursor {
  int panel, chunk, segment;

  __device__ void settle(const WeightView& weight) {
    while (segment + 1 < weight.segment_count &&
           chunk >= weight.segments[segment + 1].first_chunk) {
      ++segment;
    }
  }
  __device__ void advance(const WeightView& weight, int first, int end, int stride) {
    chunk += kFewWarps;
    if (chunk >= end) {
      chunk = first;
      panel += stride;
      segment = 0;
    }
    settle(weight);
  }
};

template <int kTiles>
__global__ void __launch_bounds__(kFewThreads, 1)
    multiply_few(const __grid_constant__ WeightView weight, const ExactRows x, __nv_bfloat16* y,
                 const SplitK split, const FewLayout layout) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const auto m = static_cast<int>(x.m);
  uint8_t* const ring = shared + warp * layout.warp_bytes();
  uint8_t* const own_x = ring + kFewStages * layout.slot_bytes;
  auto* const sums_of_warps = reinterpret_cast<float*>(shared + layout.sums_offset());

  allow_next_grid();
  const int part = blockIdx.x % split.parts;
  const int stride = gridDim.x / split.parts;
  const int first_panel = blockIdx.x / split.parts;
  const int begin = static_cast<int>(int64_t{weight.chunks} * part / split.parts);
  const int end = static_cast<int>(int64_t{weight.chunks} * (part + 1) / split.parts);
  const int first = begin + warp;

  const auto copy_record = [&](const RecordCursor& at, int slot) {
    if (first < end && at.panel < weight.panels) {
      const WeightView::Segment& segment = weight.segments[at.segment];
      const int bytes = record_bytes(segment.format);
      const uint8_t* const record = weight.records + at.panel * weight.panel_bytes +
                                    segment.offset +
                                    int64_t{at.chunk - segment.first_chunk} * bytes;
      uint8_t* const to = ring + slot * layout.slot_bytes;
      for (int i = lane * 16; i < bytes; i += kLanes * 16) copy_async(to + i, record + i);
    }
    commit_copies();
  };
  RecordCursor ahead = {first_panel, first, 0};
  ahead.settle(weight);
  RecordCursor at = ahead;
  // Weights do not depend on the grid ahead.
  for (int slot = 0; slot < kFewStages - 1; ++slot) {
    copy_record(ahead, slot);
    ahead.advance(weight, first, end, stride);
  }
  wait_for_previous_grid();
  for (int chunk = first, slot = 0; chunk < end; chunk += kFewWarps, ++slot) {
    const auto* const blocks =
        reinterpret_cast<const uint8_t*>(x.values) + int64_t{chunk} * layout.x_bytes;
    for (int i = lane * 16; i < layout.x_bytes; i += kLanes * 16) {
      copy_async(own_x + slot * layout.x_bytes + i, blocks + i);
    }
  }
  commit_copies();
  wait_for_copies<0>();
  __syncwarp();

  // This thread's output of a panel: row of X and of the panel, where it has one.
  constexpr int kSums = kTiles * kPanel * 8;
  static_assert(kSums <= kFewThreads);
  const int index = threadIdx.x / kLanes;  // of a lane's sums [half][tile][4]
  const int x_row = index / 4 % kTiles * 8 + lane % 4 * 2 + index % 2;
  const int panel_row = index / (4 * kTiles) * 16 + index / 2 % 2 * 8 + lane / 4;
  const bool has_output = threadIdx.x < kSums && x_row < m;
  const bool x_special = has_output && x.special[x_row] != 0;

  int slot = 0;
  for (int panel = first_panel; panel < weight.panels; panel += stride) {
    float sums[2][kTiles][4] = {};
    for (int chunk = first, x_slot = 0; chunk < end; chunk += kFewWarps, ++x_slot) {
      wait_for_copies<kFewStages - 2>();
      __syncwarp();  // of all lanes; and the slot before this one has been read
      copy_record(ahead, slot == 0 ? kFewStages - 1 : slot - 1);
      ahead.advance(weight, first, end, stride);
      const uint8_t* const blocks = own_x + x_slot * layout.x_bytes;
      const auto rows = [&](int block, int tile) {
        const int row = tile * 8 + lane / 4;
        return row < m ? *reinterpret_cast<const uint4*>(blocks + (block * m + row) * 64 +
                                                         lane % 4 * 16)
                       : uint4{0, 0, 0, 0};
      };
      multiply_record<kTiles>(weight.segments[at.segment].format, ring + slot * layout.slot_bytes,
                              lane, rows, sums);
      at.advance(weight, first, end, stride);
      slot = slot == kFewStages - 1 ? 0 : slot + 1;
    }
    float* const of_warp = sums_of_warps + warp * kSums;
#pragma unroll
    for (int i = 0; i < kSums / kLanes; ++i) of_warp[i * kLanes + lane] = (&sums[0][0][0])[i];
    __syncthreads();
    float sum = 0;
    if (threadIdx.x < kSums) {
#pragma unroll
      for (int each = 0; each < kFewWarps; ++each) sum += sums_of_warps[each * kSums + threadIdx.x];
    }
    bool finishes = true;
    if (split.parts > 1) {
      float* const tile = split.partials + int64_t{panel} * split.parts * kSums;
      if (threadIdx.x < kSums) tile[part * kSums + threadIdx.x] = sum;
      finishes = is_last_part(split, panel);
      if (finishes && threadIdx.x < kSums) {
        sum = 0;
        for (int each = 0; each < split.parts; ++each) sum += tile[each * kSums + threadIdx.x];
      }
    } else {
      __syncthreads();  // before the next panel's sums
    }
    const int64_t row = int64_t{panel} * kPanel + panel_row;
    if (finishes && has_output && row < weight.n) {
      y[x_row * weight.n + row] = finish(sum, weight, x, x_row, x_special, row);
    }
  }
}

}  // namespace micromix::kernels::cuda
