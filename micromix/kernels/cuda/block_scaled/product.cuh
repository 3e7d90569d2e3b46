// The block-scaled product's kernel: a template over the instructions (mma.cuh) and a tile shape.
//
// A block takes tiles of Y in turn and passes all chunks of K, of whatever formats, through one
// ring of shared memory and one set of FP32 sums; copies run ahead over tiles. Operands stay packed
// until registers. Where X has few rows, groups of warps take different chunks, each through a ring
// of its own, and their sums meet at a tile's end.
//
// E2M1 by E2M1 is multiplied as it is, everything else in E4M3's fields, which mean powers of two
// less than the elements (units_of()): sums are kept in the units of the segment at hand, and
// multiplied by a power of two where units change, which is exact.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/block_scaled/mma.cuh"
#include "micromix/kernels/cuda/block_scaled/operands.cuh"
#include "micromix/kernels/cuda/bulk_copy.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/named_barrier.cuh"
#include "micromix/kernels/cuda/shared_barrier.cuh"
#include "micromix/kernels/cuda/tile_order.cuh"

namespace micromix::kernels::cuda::block_scaled {

// A warp multiplies A_TILES x 16 rows of the weight by B_TILES x 8 of X; A_WARPS x B_WARPS warps
// make a group, which has a tile's chunks or, of GROUPS, every GROUPS-th.
template <int a_tiles, int b_tiles, int a_warps, int b_warps, int groups, int stages>
struct TileShape {
  static constexpr int kATiles = a_tiles, kBTiles = b_tiles;
  static constexpr int kAWarps = a_warps, kBWarps = b_warps;
  static constexpr int kGroups = groups;
  static constexpr int kStages = stages;
  static constexpr int kGroupWarps = a_warps * b_warps;
  static constexpr int kGroupThreads = kGroupWarps * kWarp;
  static constexpr int kThreads = kGroups * kGroupThreads;
  static constexpr int kRecords = a_warps * a_tiles;             // of a tile in one chunk
  static constexpr int kColumns = kRecords * kRecordRows;        // of Y: rows of the weight
  static constexpr int kRows = b_warps * b_tiles * kMmaColumns;  // of Y
  static_assert(kRecords % kGroupWarps == 0 || kGroupWarps % kRecords == 0);

  // Of a warp while it writes: eight rows of Y, padded against conflicts.
  static constexpr int kStagedColumns = a_tiles * kRecordRows;
  static constexpr int kStagedStride = kStagedColumns + 8;
  static constexpr int kSums = a_tiles * b_tiles * 4;  // of a thread
  static constexpr int kStagedBytes = 8 * kStagedStride * 2;
  // The warps' parts of what a tile's end needs: of each other group their sums.
  static constexpr int kEndWarpBytes = groups > 1 ? kWarp* kSums * 4 : kStagedBytes;
  static constexpr int kEndBytes = (groups > 1 ? groups - 1 : 1) * kGroupWarps * kEndWarpBytes;
  static_assert(kStagedBytes <= kEndWarpBytes);
};

// Shared memory: per group a ring of stages, each records, rows of X and their scales; then what a
// tile's end needs; then the stages' barriers.
struct Layout {
  int record_bytes;  // of the largest
  int row_bytes;     // of the widest

  template <typename Shape>
  __host__ __device__ constexpr int x_offset() const {
    return Shape::kRecords * record_bytes;
  }
  template <typename Shape>
  __host__ __device__ constexpr int scales_offset() const {
    return x_offset<Shape>() + Shape::kRows * row_bytes;
  }
  template <typename Shape>
  __host__ __device__ constexpr int stage_bytes() const {
    return scales_offset<Shape>() + Shape::kRows * kBlocksPerChunk;
  }
  template <typename Shape>
  __host__ __device__ constexpr int ring_bytes() const {
    return Shape::kStages * stage_bytes<Shape>();
  }
  template <typename Shape>
  __host__ __device__ constexpr int barriers_offset() const {
    return Shape::kGroups * ring_bytes<Shape>() + Shape::kEndBytes;
  }
  template <typename Shape>
  __host__ __device__ constexpr int bytes() const {
    return barriers_offset<Shape>() + Shape::kGroups * Shape::kStages * 8;
  }
};

// Goes through a group's chunks of a tile, knowing the segment of each.
template <typename Shape>
struct ChunkCursor {
  int chunk, segment = 0;

  __device__ ChunkCursor(const WeightView& weight, int group) : chunk(group) { settle(weight); }
  __device__ bool done(const WeightView& weight) const { return chunk >= weight.chunks; }
  __device__ void advance(const WeightView& weight) {
    chunk += Shape::kGroups;
    settle(weight);
  }

 private:
  __device__ void settle(const WeightView& weight) {
    while (segment + 1 < weight.segment_count &&
           chunk >= weight.segments[segment + 1].first_chunk) {
      ++segment;
    }
  }
};

// Waits for a group's warps.
template <typename Shape>
__device__ void synchronize_group(int group) {
  if constexpr (Shape::kGroupWarps == 1) {
    __syncwarp();
  } else if constexpr (Shape::kGroups == 1) {
    __syncthreads();
  } else {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(Shape::kGroupThreads) : "memory");
  }
}

// A group's copies, a chunk at a time, of its block's tiles one after another. All lanes of its
// warps call it and one of each issues them: of every warp some of the records, of the first the
// rest.
template <typename Shape>
class Copies {
 public:
  __device__ Copies(const WeightView& weight, const CodeRows& x, const TileOrder& order,
                    const Layout& layout, int group, int warp, uint32_t ring, uint32_t barriers)
      : weight_(weight),
        x_(x),
        order_(order),
        layout_(layout),
        group_(group),
        warp_(warp),
        ring_(ring),
        barriers_(barriers),
        tile_index_(blockIdx.x) {
    enter_tile();
  }

  // The next chunk to the next stage; nothing after the last.
  __device__ void copy_next() {
    if (tile_index_ >= order_.count()) return;
    copy_chunk();
    to_.advance();
    chunk_ += Shape::kGroups;
    record_at_ += Shape::kGroups * record_bytes_;
    x_from_ += Shape::kGroups * x_.m * row_bytes_;
    scales_from_ += Shape::kGroups * padded_rows(x_.m) * kBlocksPerChunk;
    if (chunk_ < segment_end_) return;
    if (chunk_ < weight_.chunks) {
      enter_segment();
    } else {
      tile_index_ += gridDim.x;
      if (tile_index_ < order_.count()) enter_tile();
    }
  }

 private:
  static constexpr int kWarpRecords =
      (Shape::kRecords + Shape::kGroupWarps - 1) / Shape::kGroupWarps;

  __device__ void copy_chunk() const {
    const uint32_t barrier = barriers_ + to_.stage * 8;
    const uint32_t stage = ring_ + to_.stage * layout_.stage_bytes<Shape>();
    const bool elected = elect_lane();
    if (warp_ == 0) {
      const int x_bytes = rows_ * row_bytes_;
      const int scale_bytes = static_cast<int>(padded_rows(rows_)) * kBlocksPerChunk;
      arrive_expecting(barrier, Shape::kRecords * record_bytes_ + x_bytes + scale_bytes, elected);
      copy_bulk(stage + layout_.x_offset<Shape>(), x_from_, x_bytes, barrier, elected);
      copy_bulk(stage + layout_.scales_offset<Shape>(), scales_from_, scale_bytes, barrier,
                elected);
    }
#pragma unroll
    for (int i = 0; i < kWarpRecords; ++i) {
      const int record = warp_ + i * Shape::kGroupWarps;
      if (record >= Shape::kRecords) break;
      copy_bulk(stage + record * layout_.record_bytes, panels_[i] + record_at_, record_bytes_,
                barrier, elected);
    }
  }

  __device__ void enter_tile() {
    const Tile tile(order_, tile_index_);
    first_row_ = int64_t{tile.row} * Shape::kRows;
    rows_ = static_cast<int>(min(int64_t{Shape::kRows}, x_.m - first_row_));
#pragma unroll
    for (int i = 0; i < kWarpRecords; ++i) {
      // Panels beyond the weight's end repeat its last.
      const int record = warp_ + i * Shape::kGroupWarps;
      const int panel = min(tile.column * Shape::kRecords + record, weight_.panels - 1);
      panels_[i] = weight_.records + panel * weight_.panel_bytes;
    }
    chunk_ = group_;
    segment_ = 0;
    if (chunk_ < weight_.chunks) {
      enter_segment();
    } else {
      tile_index_ = order_.count();  // a group without chunks
    }
  }

  // The chunk's, which is this one or a later one.
  __device__ void enter_segment() {
    while (chunk_ >= segment_end()) ++segment_;
    const WeightView::Segment& segment = weight_.segments[segment_];
    segment_end_ = segment_end();
    record_bytes_ = record_bytes(segment.format);
    row_bytes_ = chunk_bytes(x_.segments[segment_].format);
    const int chunk = chunk_ - segment.first_chunk;
    record_at_ = static_cast<int>(segment.offset) + chunk * record_bytes_;
    x_from_ = x_.segments[segment_].codes + (chunk * x_.m + first_row_) * row_bytes_;
    scales_from_ = x_.scales + (chunk_ * padded_rows(x_.m) + first_row_) * kBlocksPerChunk;
  }
  __device__ int segment_end() const {
    return weight_.segments[segment_].first_chunk + weight_.segments[segment_].chunks;
  }

  const WeightView& weight_;
  const CodeRows& x_;
  const TileOrder& order_;
  const Layout& layout_;
  int group_, warp_;
  uint32_t ring_, barriers_;
  RingPlace<Shape::kStages> to_;

  int tile_index_;
  int64_t first_row_;
  int rows_;
  const uint8_t* panels_[kWarpRecords];

  int segment_, segment_end_;
  int record_bytes_, row_bytes_;
  int chunk_;
  int record_at_;  // in its panel
  const uint8_t *x_from_, *scales_from_;
};

// A chunk's operands in shared memory, as one warp multiplies them.
struct ChunkOperands {
  const uint8_t* records;
  int record_bytes;  // from one to the next
  const uint8_t* rows;
  const uint8_t* row_scales;
};

template <typename Shape>
using WarpSums = float[Shape::kATiles][Shape::kBTiles][4];

template <typename Mma, typename Shape>
__device__ void multiply_e2m1_chunk(const ChunkOperands& operands, int lane,
                                    WarpSums<Shape>& sums) {
  uint32_t b[Shape::kBTiles][2], b_scales[Shape::kBTiles];
  load_e2m1_rows<Shape::kBTiles>(shared_address(operands.rows), lane, b);
  load_row_scales<Shape::kBTiles>(operands.row_scales, lane, b_scales);
#pragma unroll
  for (int i = 0; i < Shape::kATiles; ++i) {
    const uint8_t* const record = operands.records + i * operands.record_bytes;
    const uint4 codes = load_e2m1_record(record, lane);
    const uint32_t a[4] = {codes.x, codes.y, codes.z, codes.w};
    const uint32_t a_scales = load_record_scales(record, mx::Format::kE2M1, lane);
#pragma unroll
    for (int j = 0; j < Shape::kBTiles; ++j) {
      Mma::multiply_e2m1(sums[i][j], a, b[j], a_scales, b_scales[j]);
    }
  }
}

template <typename Shape>
__device__ void load_fragments(mx::Format format, const ChunkOperands& operands, int block,
                               int lane, uint32_t (&a)[Shape::kATiles][4]) {
  const auto load = [&]<mx::Format of_format>() {
#pragma unroll
    for (int i = 0; i < Shape::kATiles; ++i) {
      load_fragment<of_format>(operands.records + i * operands.record_bytes, block, lane, a[i]);
    }
  };
  switch (format) {
    case mx::Format::kE2M1:
      return load.template operator()<mx::Format::kE2M1>();
    case mx::Format::kE2M3:
      return load.template operator()<mx::Format::kE2M3>();
    case mx::Format::kE3M2:
      return load.template operator()<mx::Format::kE3M2>();
    default:
      return load.template operator()<mx::Format::kE4M3>();
  }
}

template <int tiles>
__device__ void load_rows(mx::Format format, const uint8_t* rows, int block, int lane,
                          uint32_t (&b)[tiles][2]) {
  const uint32_t address = shared_address(rows);
  switch (format) {
    case mx::Format::kE2M1:
      return load_rows<mx::Format::kE2M1, tiles>(rows, address, block, lane, b);
    case mx::Format::kE2M3:
      return load_rows<mx::Format::kE2M3, tiles>(rows, address, block, lane, b);
    case mx::Format::kE3M2:
      return load_rows<mx::Format::kE3M2, tiles>(rows, address, block, lane, b);
    default:
      return load_rows<mx::Format::kE4M3, tiles>(rows, address, block, lane, b);
  }
}

template <typename Mma, typename Shape>
__device__ void multiply_chunk(mx::Format weight_format, mx::Format x_format,
                               const ChunkOperands& operands, int lane, WarpSums<Shape>& sums) {
  if (weight_format == mx::Format::kE2M1 && x_format == mx::Format::kE2M1) {
    return multiply_e2m1_chunk<Mma, Shape>(operands, lane, sums);
  }
  uint32_t a_scales[Shape::kATiles], b_scales[Shape::kBTiles];
#pragma unroll
  for (int i = 0; i < Shape::kATiles; ++i) {
    a_scales[i] =
        load_record_scales(operands.records + i * operands.record_bytes, weight_format, lane);
  }
  load_row_scales<Shape::kBTiles>(operands.row_scales, lane, b_scales);
#pragma unroll
  for (int block = 0; block < kBlocksPerChunk; ++block) {
    uint32_t a[Shape::kATiles][4], b[Shape::kBTiles][2];
    load_fragments<Shape>(weight_format, operands, block, lane, a);
    load_rows<Shape::kBTiles>(x_format, operands.rows, block, lane, b);
#pragma unroll
    for (int i = 0; i < Shape::kATiles; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kBTiles; ++j) {
        Mma::multiply_e4m3(sums[i][j], a[i], b[j], a_scales[i] >> 8 * block,
                           b_scales[j] >> 8 * block);
      }
    }
  }
}

// The power of two that a segment's products are to be multiplied by, as an exponent.
__device__ inline int segment_units(mx::Format weight_format, mx::Format x_format) {
  if (weight_format == mx::Format::kE2M1 && x_format == mx::Format::kE2M1) return 0;
  return units_of(weight_format) + units_of(x_format);
}

template <typename Shape>
__device__ void multiply_sums(float factor, WarpSums<Shape>& sums) {
#pragma unroll
  for (int i = 0; i < Shape::kSums; ++i) (&sums[0][0][0])[i] *= factor;
}

__device__ inline float power_of_two(int exponent) {
  return __int_as_float((127 + exponent) << 23);
}

// The first group's sums plus the others', in order, which go through END: a warp's sums to the
// same warp of the first group, at which END's bytes of that warp are its own again.
template <typename Shape>
__device__ void add_groups(int group, int warp, int lane, uint8_t* end, WarpSums<Shape>& sums) {
  if constexpr (Shape::kGroups == 1) return;
  const auto of_warp = [&](int other) {
    return reinterpret_cast<float*>(end +
                                    (other * Shape::kGroupWarps + warp) * Shape::kEndWarpBytes) +
           lane;
  };
  __syncthreads();  // the tile before has been written
  if (group > 0) {
    float* const own = of_warp(group - 1);
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) own[i * kWarp] = (&sums[0][0][0])[i];
  }
  __syncthreads();
  if (group > 0) return;
  for (int other = 0; other < Shape::kGroups - 1; ++other) {
    const float* const theirs = of_warp(other);
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) (&sums[0][0][0])[i] += theirs[i * kWarp];
  }
  __syncwarp();
}

// A warp's sums to Y, eight rows at a time through STAGED, four lanes a row.
template <typename Shape>
__device__ void write_outputs(const WeightView& weight, int64_t m, const Tile& tile, int warp,
                              int lane, const WarpSums<Shape>& sums, __nv_bfloat16* staged,
                              __nv_bfloat16* y) {
  const int64_t first_column =
      int64_t{tile.column} * Shape::kColumns + warp % Shape::kAWarps * Shape::kStagedColumns;
  const int64_t first_row =
      int64_t{tile.row} * Shape::kRows + warp / Shape::kAWarps * Shape::kBTiles * kMmaColumns;
  float bias[Shape::kATiles][2];
#pragma unroll
  for (int i = 0; i < 2 * Shape::kATiles; ++i) {
    const int64_t column = first_column + i * 8 + lane / 4;
    bias[i / 2][i % 2] = weight.bias == nullptr ? 0.0f : weight.bias[min(column, weight.n - 1)];
  }
  const int64_t columns = weight.n - first_column;
  const bool whole_lines = weight.n % 8 == 0;
#pragma unroll
  for (int j = 0; j < Shape::kBTiles; ++j) {
#pragma unroll
    for (int i = 0; i < Shape::kATiles; ++i) {
#pragma unroll
      for (int reg = 0; reg < 4; ++reg) {
        staged[c_column(lane, reg) * Shape::kStagedStride + i * kRecordRows + c_row(lane, reg)] =
            __float2bfloat16_rn(sums[i][j][reg] + bias[i][reg / 2]);
      }
    }
    __syncwarp();
    const int64_t row = first_row + j * kMmaColumns + lane / 4;
    if (row < m) {
      const __nv_bfloat16* const from = staged + lane / 4 * Shape::kStagedStride;
      __nv_bfloat16* const to = y + row * weight.n + first_column;
      if (whole_lines) {
        for (int at = lane % 4 * 8; at < Shape::kStagedColumns && at < columns; at += 32) {
          *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(from + at);
        }
      } else {
        for (int at = lane % 4; at < Shape::kStagedColumns && at < columns; at += 4) {
          to[at] = from[at];
        }
      }
    }
    __syncwarp();
  }
}

template <typename Mma, typename Shape>
__device__ void multiply_tiles(const WeightView& weight, const CodeRows& x, __nv_bfloat16* y,
                               const TileOrder& order, const Layout& layout, uint8_t* shared) {
  // The same in all lanes, which the compiler should know.
  const int block_warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / kWarp), 0);
  const int group = block_warp / Shape::kGroupWarps;
  const int warp = block_warp % Shape::kGroupWarps;
  const int lane = threadIdx.x % kWarp;
  uint8_t* const ring = shared + group * layout.ring_bytes<Shape>();
  uint8_t* const end = shared + Shape::kGroups * layout.ring_bytes<Shape>();
  const uint32_t all_barriers = shared_address(shared + layout.barriers_offset<Shape>());
  const uint32_t barriers = all_barriers + group * Shape::kStages * 8;

  allow_next_grid();
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kGroups * Shape::kStages; ++i) init_barrier(all_barriers + i * 8, 1);
    fence_barriers();
  }
  __syncthreads();
  wait_for_previous_grid();
  Copies<Shape> copies(weight, x, order, layout, group, warp, shared_address(ring), barriers);
  for (int i = 0; i < Shape::kStages - 1; ++i) copies.copy_next();

  RingPlace<Shape::kStages> from;
  for (int index = blockIdx.x; index < order.count(); index += gridDim.x) {
    WarpSums<Shape> sums = {};
    int units = 0;
    for (ChunkCursor<Shape> at(weight, group); !at.done(weight); at.advance(weight)) {
      synchronize_group<Shape>(group);  // the stage before has been read
      copies.copy_next();
      const mx::Format weight_format = weight.segments[at.segment].format;
      const mx::Format x_format = x.segments[at.segment].format;
      const int units_here = segment_units(weight_format, x_format);
      if (units_here != units) {
        multiply_sums<Shape>(power_of_two(units - units_here), sums);
        units = units_here;
      }
      const uint8_t* const chunk = ring + from.stage * layout.stage_bytes<Shape>();
      const int first_record = warp % Shape::kAWarps * Shape::kATiles;
      const int first_row = warp / Shape::kAWarps * Shape::kBTiles * kMmaColumns;
      const ChunkOperands operands = {
          chunk + first_record * layout.record_bytes, layout.record_bytes,
          chunk + layout.x_offset<Shape>() + first_row * chunk_bytes(x_format),
          chunk + layout.scales_offset<Shape>() + first_row * kBlocksPerChunk};
      wait_for_phase(barriers + from.stage * 8, from.parity);
      multiply_chunk<Mma, Shape>(weight_format, x_format, operands, lane, sums);
      from.advance();
    }
    if (units != 0) multiply_sums<Shape>(power_of_two(units), sums);
    add_groups<Shape>(group, warp, lane, end, sums);
    if (group > 0) continue;
    auto* const staged = reinterpret_cast<__nv_bfloat16*>(end + warp * Shape::kEndWarpBytes);
    write_outputs<Shape>(weight, x.m, Tile(order, index), warp, lane, sums, staged, y);
  }
}

// Two blocks fit a multiprocessor where their shared memory does. Bulk copies are since compute
// capability 9.0.
template <typename Mma, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 2)
    multiply_block_scaled(const __grid_constant__ WeightView weight,
                          const __grid_constant__ CodeRows x, __nv_bfloat16* y,
                          const __grid_constant__ TileOrder order,
                          const __grid_constant__ Layout layout) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(16) uint8_t shared[];
  multiply_tiles<Mma, Shape>(weight, x, y, order, layout, shared);
#else
  __trap();
#endif
}

}  // namespace micromix::kernels::cuda::block_scaled
