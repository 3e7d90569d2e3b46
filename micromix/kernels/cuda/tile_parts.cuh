// Output tiles whose products are shared out among thread blocks by parts of K: where each part's
// sums wait, and how they become outputs.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/oracle.cuh"
#include "micromix/kernels/cuda/packed_layout.h"
#include "micromix/kernels/cuda/peers.cuh"

namespace micromix::kernels::cuda {

// A part's sums of a tile of ROWS of X by COLUMNS rows of the weight: FP32, padded against
// conflicts of those that store them.
template <int columns>
inline constexpr int kSumsStride = columns + 4;
template <int rows, int columns>
inline constexpr int kTileSums = rows* kSumsStride<columns>;

// A warp's of panel PANEL of the tile, as instructions leave them.
template <int columns, int tiles>
__device__ void store_sums(float* tile, int panel, int lane, const float (&sums)[2][tiles][4]) {
  float* const corner = tile + lane % 4 * 2 * kSumsStride<columns> + panel * kPanel + lane / 4;
#pragma unroll
  for (int i = 0; i < 2 * tiles; ++i) {
#pragma unroll
    for (int side = 0; side < 4; ++side) {
      corner[(i / 2 * 8 + i % 2) * kSumsStride<columns> + side * 8] =
          sums[side / 2][i / 2][side % 2 * 2 + i % 2];
    }
  }
}

// Parts of a tile in global memory, or one in the block's shared memory: one behind the other.
struct PartsInMemory {
  const float* first;
  int64_t stride;

  __device__ float4 load(int part, int at) const {
    return *reinterpret_cast<const float4*>(first + part * stride + at);
  }
};
// Parts of a tile in the shared memory of a cluster's blocks, at OWN in each.
struct PartsOfCluster {
  const float* own;

  __device__ float4 load(int part, int at) const {
    return ClusterPeers::load(reinterpret_cast<const float4*>(own + at), part);
  }
};

// What of a tile a block writes: ROW and COLUMN are the tile's first in Y, and of its rows those
// from BEGIN to END.
struct TileRows {
  int64_t row, column;
  int begin, end;

  // The rows of ROWS that a cluster's block RANK of RANKS writes.
  __device__ TileRows(int64_t first_row, int64_t first_column, int rows, int rank, int ranks)
      : row(first_row),
        column(first_column),
        begin(rows * rank / ranks),
        end(rows * (rank + 1) / ranks) {}
};

// Makes outputs of a tile of so many COLUMNS from sums, by a warp of WARPS: a lane's are four
// columns of every so many rows.
template <int columns, int warps>
class TileWriter {
  static constexpr int kEach = 4;  // columns of a lane

 public:
  __device__ TileWriter(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                        const TileRows& rows, int warp, int lane)
      : weight_(weight),
        x_(x),
        y_(y),
        rows_(rows),
        in_tile_((warp % kPieces * kLanes + lane) * kEach),
        first_(rows.begin + warp / kPieces) {}

  // What makes the lane's outputs from sums; to be loaded early.
  struct Ends {
    RowEnd of_column[kEach];
    bool special;  // whether the lane saw a row of X or of the weight that is
  };
  __device__ Ends load_ends() const {
    Ends ends{};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      ends.of_column[i] = RowEnd(weight_, min(column() + i, weight_.n - 1));
      ends.special |= ends.of_column[i].needs_oracle();
    }
    const auto lane = static_cast<int>(threadIdx.x % kLanes);
    for (int row = rows_.begin + lane; row < rows_.end; row += kLanes) {
      ends.special |= x_.special[rows_.row + row] != 0;
    }
    return ends;
  }

  // From COUNT parts, added in their order. As many loads are under way together as there are of
  // MOST parts and some rows; quickest if COUNT is not more.
  template <int most, typename Parts>
  __device__ void write(const Parts& parts, int count, const Ends& ends) const {
    constexpr int kRows = kLoads / most;
    // Only what is stored is loaded: a load that nothing waits for could outlive the cluster.
    const int end = column() < weight_.n ? rows_.end : 0;
    for (int row = first_; row < end; row += kRows * kRowStep) {
      float4 sums[kRows] = {};
      for (int first = 0; first < count; first += most) {
        float4 of_part[kRows][most] = {};
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          const int of_row = row + i * kRowStep;
#pragma unroll
          for (int j = 0; j < most; ++j) {
            if (first + j < count && of_row < end) {
              of_part[i][j] = parts.load(first + j, of_row * kSumsStride<columns> + in_tile_);
            }
          }
        }
#pragma unroll
        for (int j = 0; j < most; ++j) {
          if (first + j >= count) continue;
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            sums[i].x += of_part[i][j].x;
            sums[i].y += of_part[i][j].y;
            sums[i].z += of_part[i][j].z;
            sums[i].w += of_part[i][j].w;
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (row + i * kRowStep >= end) break;
        store(row + i * kRowStep, sums[i], ends.of_column);
      }
    }
    if (__any_sync(~0u, ends.special)) write_oracle_outputs();
  }
  // From those of a cluster.
  __device__ void write(const PartsOfCluster& parts, int count, const Ends& ends) const {
    if (count <= 2) return write<2>(parts, count, ends);
    if (count <= 4) return write<4>(parts, count, ends);
    write<8>(parts, count, ends);
  }

 private:
  static constexpr int kLoads = 16;                           // of a lane, under way together
  static constexpr int kPieces = columns / (kEach * kLanes);  // of a row, one a warp
  static constexpr int kRowStep = warps / kPieces;
  static_assert(warps % kPieces == 0);

  __device__ int64_t column() const {
    return rows_.column + in_tile_;
  }

  __device__ void store(int row, const float4& sum, const RowEnd (&ends)[kEach]) const {
    alignas(8) const __nv_bfloat16 out[kEach] = {ends[0].finish(sum.x), ends[1].finish(sum.y),
                                                 ends[2].finish(sum.z), ends[3].finish(sum.w)};
    __nv_bfloat16* const to = y_ + (rows_.row + row) * weight_.n + column();
    if (weight_.n % kEach == 0) {
      if (column() < weight_.n) *reinterpret_cast<uint2*>(to) = reinterpret_cast<const uint2&>(out);
    } else {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        if (column() + j < weight_.n) to[j] = out[j];
      }
    }
  }

  // The lane's outputs that no sum can give.
  __device__ __noinline__ void write_oracle_outputs() const {
    for (int row = first_; row < rows_.end; row += kRowStep) {
      const int64_t y_row = rows_.row + row;
      for (int64_t at = column(); at < min(column() + kEach, weight_.n); ++at) {
        if (x_.special[y_row] != 0 || RowEnd(weight_, at).needs_oracle()) {
          y_[y_row * weight_.n + at] = oracle_output(weight_, x_, y_row, at);
        }
      }
    }
  }

  const WeightView& weight_;
  const ExactRows& x_;
  __nv_bfloat16* y_;
  TileRows rows_;
  int in_tile_;
  int first_;  // of the warp's rows
};

}  // namespace micromix::kernels::cuda
