// The product for at most 16 rows of X, which is a read of the weight.
//
// A block keeps the rows of X (of its part of K) in shared memory and goes through panels of the
// weight. Sixteen warps share a panel's chunks in turn: a warp streams the records of its own
// chunks through its own ring of shared memory and reads only X's blocks that they meet, so they
// need no barrier. At a panel's end they leave their sums to four more warps, which add them, in
// order, while the sixteen go on. Copies run ahead over panels.
//
// Where X does not fit, or panels do not come out even, blocks share panels: each takes a part of K
// of all panels of a column and owns some of them. It works on the others' first and its own last,
// so that when it wants the others' sums, they are there. Waiting for each other ends because all
// blocks run at once: they are no more than there are SMs, and a GPU hands out a grid's blocks
// before those of a later grid.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/async_copy.cuh"
#include "micromix/kernels/cuda/epilogue.cuh"
#include "micromix/kernels/cuda/expand.cuh"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/named_barrier.cuh"
#include "micromix/kernels/cuda/shared_barrier.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kFewRows = 16;  // of X at most
inline constexpr int kFewWarps = 16;
inline constexpr int kSumWarps = 4;
inline constexpr int kSumThreads = kSumWarps * kLanes;
inline constexpr int kFewThreads = (kFewWarps + kSumWarps) * kLanes;

// Where a warp's records lie in a panel, and what they are.
struct RecordEntry {
  int32_t offset;
  int16_t bytes;
  mx::Format format;
};
static_assert(sizeof(RecordEntry) == 8);
inline constexpr int kLargestRecord = record_bytes(mx::Format::kE4M3);

// Shared memory: per warp a ring of records, its blocks of X and its list of records; then sums of
// all warps.
struct FewLayout {
  int stages;
  int slot_bytes;   // of the largest record
  int warp_chunks;  // that a warp has at most
  int x_bytes;      // of X that meet one record: [block][row][32] BF16

  __host__ __device__ int x_offset() const { return stages * slot_bytes; }
  __host__ __device__ int entries_offset() const { return x_offset() + warp_chunks * x_bytes; }
  __host__ __device__ int warp_bytes() const {
    return entries_offset() + (warp_chunks + 1) / 2 * 16;
  }
  __host__ __device__ int sums_offset() const { return kFewWarps * warp_bytes(); }
  // TILES of 8 rows of X. Of the barrier at which threads that add arrive once they read the sums.
  __host__ __device__ int read_offset(int tiles) const {
    return sums_offset() + kFewWarps * tiles * kPanel * 8 * 4;
  }
  __host__ __device__ int bytes(int tiles) const { return read_offset(tiles) + 8; }
};

using SumsFull = NamedBarrier<1, kFewThreads>;
using SumThreads = NamedBarrier<2, kSumThreads>;

// A block's way through the panels of its column, x, x + gridDim.x, ...: those that other parts own
// first. Part p owns every parts-th from the p-th on.
class PanelCursor {
 public:
  __device__ PanelCursor(const WeightView& weight, const SplitK& split)
      : parts_(split.parts), panels_(weight.panels), panel_(blockIdx.x), owned_(split.parts == 1) {
    settle();
  }
  __device__ bool done() const { return panel_ >= panels_; }
  __device__ bool owned() const { return owned_; }
  __device__ int panel() const { return panel_; }
  __device__ void advance() {
    step();
    settle();
  }

 private:
  __device__ void step() {
    panel_ += gridDim.x;
    owner_ = owner_ + 1 == parts_ ? 0 : owner_ + 1;
  }
  __device__ void settle() {
    for (;;) {
      while (panel_ < panels_ && (owner_ == blockIdx.y) != owned_) step();
      if (panel_ < panels_ || owned_) return;
      owned_ = true;
      panel_ = blockIdx.x;
      owner_ = 0;
    }
  }

  int parts_, panels_, panel_;
  int owner_ = 0;
  bool owned_;
};

// Lists the records of chunks FIRST, FIRST + kFewWarps, ... below END; how many.
__device__ inline int list_records(const WeightView& weight, int first, int end, int lane,
                                   RecordEntry* entries) {
  const int count = first < end ? (end - first + kFewWarps - 1) / kFewWarps : 0;
  for (int i = lane; i < count; i += kLanes) {
    const int chunk = first + i * kFewWarps;
    RecordEntry entry{};
#pragma unroll
    for (int s = 0; s < kMostSegments; ++s) {
      const WeightView::Segment& segment = weight.segments[s];
      if (s >= weight.segment_count || chunk < segment.first_chunk) continue;
      const int bytes = record_bytes(segment.format);
      entry = {static_cast<int32_t>(segment.offset) + (chunk - segment.first_chunk) * bytes,
               static_cast<int16_t>(bytes), segment.format};
    }
    entries[i] = entry;
  }
  __syncwarp();
  return count;
}

// Where the sums of a panel lie, as warps leave them: [half][tile][side][2][lane].
template <int kTiles>
struct FewSums {
  static constexpr int kCount = kTiles * kPanel * 8;

  __device__ static int panel_row(int index) {
    return index / (kCount / 2) * 16 + index / 64 % 2 * 8 + index % kLanes / 4;
  }
  __device__ static int x_row(int index) {
    return index / 128 % kTiles * 8 + index % 4 * 2 + index / kLanes % 2;
  }
};

// Outputs of a panel from its sums, of which this thread has FIRST, FIRST + STEP, ...
template <int kTiles, int kOwn>
__device__ void write_outputs(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                              int panel, int first, int step, const RowEnd (&ends)[kOwn],
                              const float (&sums)[kOwn]) {
  using Sums = FewSums<kTiles>;
  bool special = false;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int index = first + i * step;
    const int64_t row = int64_t{panel} * kPanel + Sums::panel_row(index);
    const int x_row = Sums::x_row(index);
    if (index >= Sums::kCount || row >= weight.n || x_row >= x.m) continue;
    y[x_row * weight.n + row] = ends[i].finish(sums[i]);
    special |= ends[i].needs_oracle() || x.special[x_row] != 0;
  }
  if (!special) return;
#pragma unroll 1
  for (int index = first; index < Sums::kCount; index += step) {
    const int64_t row = int64_t{panel} * kPanel + Sums::panel_row(index);
    const int x_row = Sums::x_row(index);
    if (row < weight.n && x_row < x.m &&
        (RowEnd(weight, row).needs_oracle() || x.special[x_row] != 0)) {
      y[x_row * weight.n + row] = oracle_output(weight, x, x_row, row);
    }
  }
}

// The last four warps: sums of every panel, and outputs of those that the block owns.
template <int kTiles>
__device__ void add_sums(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                         const SplitK& split, const float* sums_of_warps, uint32_t sums_read) {
  using Sums = FewSums<kTiles>;
  constexpr int kOwn = Sums::kCount / kSumThreads;
  const int thread = threadIdx.x - kFewWarps * kLanes;
  wait_for_previous_grid();
  for (PanelCursor at(weight, split); !at.done();) {
    const int panel = at.panel();
    const bool owned = at.owned();
    RowEnd ends[kOwn];  // fetched while the sums are made
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int64_t row = int64_t{panel} * kPanel + Sums::panel_row(thread + i * kSumThreads);
      ends[i] = RowEnd(weight, min(row, weight.n - 1));
    }
    SumsFull::wait();
    float sums[kOwn] = {};
    for (int warp = 0; warp < kFewWarps; ++warp) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        sums[i] += sums_of_warps[warp * Sums::kCount + i * kSumThreads + thread];
      }
    }
    at.advance();
    if (!at.done()) arrive(sums_read);
    float* const parts = split.partials + int64_t{panel} * split.parts * Sums::kCount + thread;
    if (!owned) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) parts[blockIdx.y * Sums::kCount + i * kSumThreads] = sums[i];
      SumThreads::wait();
      if (thread == 0) announce_part(split.counters, panel);
      continue;
    }
    if (split.parts > 1) {
      if (thread == 0) {
        await_parts(split.counters, panel, split.parts - 1);
        split.counters[panel] = 0;
      }
      SumThreads::wait();
      float own[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        own[i] = sums[i];
        sums[i] = 0;
      }
      for (int part = 0; part < split.parts; ++part) {
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          sums[i] += part == blockIdx.y ? own[i] : parts[part * Sums::kCount + i * kSumThreads];
        }
      }
    }
    write_outputs<kTiles>(weight, x, y, panel, thread, kSumThreads, ends, sums);
  }
}

// The other warps: the products of their chunks.
template <int kTiles, int kStages>
__device__ void multiply_records(const WeightView& weight, const ExactRows& x, const SplitK& split,
                                 const FewLayout& layout, bool overlap, uint8_t* shared,
                                 uint32_t sums_read) {
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const PartOfK part(split, blockIdx.y);

  const auto m = static_cast<int>(x.m);
  // Of each tile's rows the lane's for load_exact_rows(); of rows that there are not the last.
  uint32_t own_rows[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int row = min(i * 8 + lane % 8, m - 1);
    own_rows[i] = exact_rows_at(row, lane);
  }
  uint8_t* const ring = shared + warp * layout.warp_bytes();
  uint8_t* const own_x = ring + layout.x_offset();
  auto* const entries = reinterpret_cast<RecordEntry*>(ring + layout.entries_offset());
  const int count = list_records(weight, part.begin + warp, part.end, lane, entries);

  // The record to copy next, and the slot it goes to.
  PanelCursor ahead_panel(weight, split);
  int ahead = 0, ahead_slot = 0;
  bool ahead_first = true;  // of its panels, whose records bring X along
  const uint8_t* ahead_records =
      weight.records + ahead_panel.panel() * weight.panel_bytes + lane * 16;
  const auto copy_record = [&] {
    const RecordEntry entry = entries[ahead];
    const uint8_t* const from = ahead_records + entry.offset;
    const uint32_t to = shared_address(ring) + ahead_slot * layout.slot_bytes + lane * 16;
    static_assert(kLargestRecord <= 5 * kLanes * 16);
    const int bytes = entry.bytes - lane * 16;
    copy_async_at<0, 0>(to, from, bytes > 0);
    copy_async_at<512, 512>(to, from, bytes > 512);
    copy_async_at<1024, 1024>(to, from, bytes > 1024);
    copy_async_at<1536, 1536>(to, from, bytes > 1536);
    copy_async_at<2048, 2048>(to, from, bytes > 2048);
    if (++ahead == count) {
      ahead = 0;
      ahead_first = false;
      ahead_panel.advance();
      ahead_records = weight.records + ahead_panel.panel() * weight.panel_bytes + lane * 16;
    }
    ahead_slot = ahead_slot == kStages - 1 ? 0 : ahead_slot + 1;
  };
  // The blocks of X that meet the I-th record of every panel; they stay.
  const auto copy_x = [&](int i) {
    const uint8_t* const from = reinterpret_cast<const uint8_t*>(x.values) +
                                int64_t{part.begin + warp + i * kFewWarps} * layout.x_bytes;
    uint8_t* const to = own_x + i * layout.x_bytes;
    for (int byte = lane * 16; byte < layout.x_bytes; byte += kLanes * 16) {
      copy_async(to + byte, from + byte);
    }
  };
  const auto copy_next = [&] {
    if (!ahead_panel.done() && count > 0) {
      if (ahead_first) copy_x(ahead);
      copy_record();
    }
    commit_copies();
  };
  if (overlap) {
    // Weights do not depend on the grid ahead, which may still be running.
    const int first = min(count, kStages - 1);
    for (int i = 0; i < first; ++i) copy_record();
    wait_for_previous_grid();
    for (int i = 0; i < first; ++i) copy_x(i);
    commit_copies();
    for (int i = 1; i < first; ++i) commit_copies();
    for (int i = first; i < kStages - 1; ++i) copy_next();
  } else {
    for (int i = 0; i < kStages - 1; ++i) copy_next();
  }

  int slot = 0;
  int panels = 0;
  for (PanelCursor at(weight, split); !at.done(); at.advance()) {
    float sums[2][kTiles][4] = {};
    for (int i = 0; i < count; ++i) {
      wait_for_copies<kStages - 2>();
      __syncwarp();  // of all lanes; and the slot that is filled next has been read
      copy_next();
      const uint32_t blocks = shared_address(own_x) + i * layout.x_bytes;
      const auto rows = [&](int block, int tile) {
        return load_exact_rows(blocks + block * m * kExactBlockBytes + own_rows[tile]);
      };
      with_format(entries[i].format, [&]<mx::Format format>() {
        multiply_record<format, kTiles>(
            ring + slot * layout.slot_bytes, lane, rows, [] {}, sums);
      });
      slot = slot == kStages - 1 ? 0 : slot + 1;
    }
    if (panels > 0) wait_for_phase(sums_read, (panels - 1) % 2);
    ++panels;
    float* const of_warp =
        reinterpret_cast<float*>(shared + layout.sums_offset()) + warp * FewSums<kTiles>::kCount;
#pragma unroll
    for (int i = 0; i < kTiles * 8; ++i) of_warp[i * kLanes + lane] = (&sums[0][0][0])[i];
    SumsFull::arrive();
  }
}

template <int kTiles, int kStages>
__global__ void __launch_bounds__(kFewThreads, 1)
    multiply_few(const __grid_constant__ WeightView weight, const __grid_constant__ ExactRows x,
                 __nv_bfloat16* y, const __grid_constant__ SplitK split,
                 const __grid_constant__ FewLayout layout, const bool overlap) {
  uint8_t* const shared = dynamic_shared();
  allow_next_grid();
  const uint32_t sums_read = shared_address(shared + layout.read_offset(kTiles));
  if (threadIdx.x == 0) init_barrier(sums_read, kSumThreads);
  __syncthreads();
  if (threadIdx.x < kFewWarps * kLanes) {
    multiply_records<kTiles, kStages>(weight, x, split, layout, overlap, shared, sums_read);
  } else {
    const auto* const sums = reinterpret_cast<const float*>(shared + layout.sums_offset());
    add_sums<kTiles>(weight, x, y, split, sums, sums_read);
  }
}

}  // namespace micromix::kernels::cuda
