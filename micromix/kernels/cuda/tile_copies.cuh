// Copies of a weight's records and X's rows to the ring of a tile's block, a chunk of 64 channels
// to a stage.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/packed_layout.h"
#include "micromix/kernels/cuda/segment_cursor.cuh"
#include "micromix/kernels/cuda/shared_barrier.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kTilePanels = 4;
inline constexpr int kTileThreads = kTilePanels * kLanes;
inline constexpr int kTileColumns = kTilePanels * kPanel;  // rows of the weight, columns of Y
inline constexpr int kTileStages = 4;

template <int kRows>
__host__ __device__ constexpr int tile_x_bytes() {
  return kRows * kChunk * 2;
}
template <int kRows>
__host__ __device__ int tile_stage_bytes(int slot_bytes) {
  return kTilePanels * slot_bytes + tile_x_bytes<kRows>();
}

using TilePlace = RingPlace<kTileStages>;

// A piece of 16 bytes a thread: of its warp's records and of X. A chunk is copied while the one
// kTileStages - 1 before it is multiplied. Addresses move on before a chunk's copies, not after: a
// copy reads its address some time after it is issued, and an addition would wait for that.
template <int kRows>
class TileCopies {
 public:
  __device__ TileCopies(const WeightView& weight, const ExactRows& x, int slot_bytes, int panel,
                        int64_t first_x_row, int first_chunk, uint32_t ring)
      : at_(weight, first_chunk),
        stage_bytes_(tile_stage_bytes<kRows>(slot_bytes)),
        chunk_bytes_(x.m * kExactBlockBytes * kBlocksPerChunk) {
    const int lane = threadIdx.x % kLanes;
    record_shared_ = ring + threadIdx.x / kLanes * slot_bytes + lane * 16;
    // Panels beyond the weight's end repeat its last.
    record_ = record_of(weight, min(panel, weight.panels - 1), weight.segments[at_.segment],
                        first_chunk) +
              lane * 16;
    x_shared_ = ring + kTilePanels * slot_bytes + threadIdx.x * 16;
    const int row = threadIdx.x / 4;
    rows_left_ = static_cast<int>(min(int64_t{kRows}, x.m - first_x_row)) - row;
    x_[0] = reinterpret_cast<const uint8_t*>(x.values) + (first_chunk - 1) * chunk_bytes_ +
            (first_x_row + row) * kExactBlockBytes + threadIdx.x % 4 * 16;
    x_[1] = x_[0] + x.m * kExactBlockBytes;
  }

  // The next chunk, CHUNK, of the warp's panel, and of X's rows; then commit(), or in their place.
  __device__ void copy_record(const WeightView& weight, int chunk) {
    record_ += last_bytes_;
    at_.move_to(weight, chunk);
    last_bytes_ = record_bytes(at_.format);
    const uint32_t to = record_shared_ + record_to_.stage * stage_bytes_;
    record_to_.advance();
    const bool six = at_.format != mx::Format::kE2M1;
    const bool eight = at_.format == mx::Format::kE4M3;
    // Whole rounds of a warp, and the scales, which four lanes copy.
    copy_async_at<0, 0>(to, record_, true);
    copy_async_at<512, 512>(to, record_, true);
    copy_async_at<1024, 1024>(to, record_, six || threadIdx.x % kLanes < 4);
    copy_async_at<1536, 1536>(to, record_, eight || (six && threadIdx.x % kLanes < 4));
    copy_async_at<2048, 2048>(to, record_, eight && threadIdx.x % kLanes < 4);
  }
  __device__ void copy_x() {
    const uint32_t to = x_shared_ + x_to_.stage * stage_bytes_;
    x_to_.advance();
    x_[0] += chunk_bytes_;
    x_[1] += chunk_bytes_;
    copy_rows<0>(to, x_[0]);
    copy_rows<kRows * kExactBlockBytes>(to, x_[1]);
  }

  __device__ void commit() { commit_copies(); }
  // Until the next chunk is there and all have read the one before.
  __device__ void wait() const {
    wait_for_copies<kTileStages - 2>();
    __syncthreads();
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
  TilePlace record_to_, x_to_;
  uint32_t record_shared_, x_shared_;
  int stage_bytes_;
  int rows_left_;
  int last_bytes_ = 0;  // of the record before
  const uint8_t* record_;
  const uint8_t* x_[kBlocksPerChunk];
  int64_t chunk_bytes_;
};

}  // namespace micromix::kernels::cuda
