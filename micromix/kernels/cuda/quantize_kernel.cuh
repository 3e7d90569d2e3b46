// The kernel of the fused quantizers. A thread block takes a row, or two at a time (kRows), or a
// cluster takes one where rows are few: it makes the row's BF16 values, leaves them in shared
// memory, and then every warp gathers and quantizes tiles. Thread blocks stay for all rows there
// are; a thread that has read its part of one row from where it was copied to begins to copy the
// next, so that memory works through all of it. Where shared memory has two places for them, the
// next rows are made before these are gathered, without a barrier between.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/peers.cuh"
#include "micromix/kernels/cuda/quantize_tile.cuh"
#include "micromix/kernels/cuda/row_sources.cuh"

namespace micromix::kernels::cuda {

inline constexpr int kMostThreads = 1024;  // so 64 registers each

// A thread block's shared memory, in this order.
struct SharedLayout {
  int32_t staged;           // bytes of rows as BF16
  int32_t staged_places;    // 1, or 2 so that the next are made while some are gathered
  int32_t channels;         // bytes of the permutation; 0: it is read from global memory
  int32_t exchange;         // bytes in which warps reorder what they write
  int32_t partials;         // bytes, of each row
  int32_t rows;             // worked on at a time
  int32_t copied;           // bytes a channel of copied inputs
  int32_t copied_channels;  // a multiple of kWarpChannels, or all of a block's

  __host__ __device__ int32_t channels_offset() const { return staged_places * staged; }
  __host__ __device__ int32_t exchange_offset() const { return channels_offset() + channels; }
  __host__ __device__ int32_t partials_offset() const { return exchange_offset() + exchange; }
  __host__ __device__ int32_t copied_offset() const { return partials_offset() + rows * partials; }
  int64_t bytes() const { return copied_offset() + int64_t{rows} * copied * copied_channels; }
};

struct SharedMemory {
  char* memory;
  const SharedLayout& layout;

  __device__ void* staged(int place) const { return memory + place * layout.staged; }
  __device__ uint4* channels() const {
    return reinterpret_cast<uint4*>(memory + layout.channels_offset());
  }
  // Of a warp.
  __device__ uint4* exchange() const {
    return reinterpret_cast<uint4*>(memory + layout.exchange_offset()) +
           threadIdx.x / kWarp * kExchangePieces;
  }
  // Of row R of those worked on.
  __device__ float* partials(int r) const {
    return reinterpret_cast<float*>(memory + layout.partials_offset() + r * layout.partials);
  }
  __device__ char* copied(int r) const {
    return memory + layout.copied_offset() + r * layout.copied * layout.copied_channels;
  }
};

// RANK's share of COUNT things.
struct Share {
  int32_t first, end;
};
__device__ inline Share share_of(int32_t count, int rank, int ranks) {
  return {count * rank / ranks, count * (rank + 1) / ranks};
}

__device__ inline Steps steps_of(int32_t k, int rank, int ranks) {
  const Share chunks = share_of((k + kWarpChannels - 1) / kWarpChannels, rank, ranks);
  return {chunks.first * kWarp + static_cast<int32_t>(threadIdx.x),
          static_cast<int32_t>(blockDim.x), chunks.end * kWarp};
}

// Begins to copy a step of rows ROW to ROW + kRows - 1, of those that there are, where its
// channels, or its first quad's, are of the row and among the copied ones.
template <int kRows, typename Source, typename Copied>
__device__ void copy_step(const Source& source, const Job& job, int32_t row, int32_t step,
                          const Copied (&to)[kRows]) {
  const int32_t channel = Source::first_channel(step);
  const bool copied = channel < job.k && to[0].has(channel);
  if (!copied) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r < job.m) source.copy(row + r, job.k, step, to[r]);
  }
}

template <int kRows, typename Source, typename Copied>
__device__ void copy_rows(const Source& source, const Job& job, int32_t row, const Steps& steps,
                          const Copied (&to)[kRows]) {
  for (int32_t step = steps.first; step < steps.end; step += steps.stride) {
    copy_step(source, job, row, step, to);
  }
  commit_copies();
}

// The BF16 values of a step to where rows are kept.
template <typename Source>
__device__ void keep_step(const Job& job, int32_t row, int32_t step, const uint4& x) {
  if (job.rows == nullptr) return;
  __nv_bfloat16* const to = job.rows + int64_t{row} * job.k;
  store_quad(to, Source::first_channel(step), job.k, {x.x, x.y});
  store_quad(to, Source::second_channel(step), job.k, {x.z, x.w});
}

// And to the blocks that gather.
template <typename Source, typename Peers>
__device__ void put_step(const Job& job, int32_t step, const uint4 (&rows)[1], void* staged,
                         const Peers& peers) {
  const int32_t first = Source::first_channel(step), second = Source::second_channel(step);
  const uint4& x = rows[0];
  const auto at = [&](int32_t channel) { return static_cast<uint16_t*>(staged) + channel; };
  if (second == first + kQuad) {
    if (first < job.k) peers.store(reinterpret_cast<uint4*>(at(first)), x);
  } else {
    if (first < job.k) peers.store(reinterpret_cast<uint2*>(at(first)), uint2{x.x, x.y});
    if (second < job.k) peers.store(reinterpret_cast<uint2*>(at(second)), uint2{x.z, x.w});
  }
}
template <typename Source>
__device__ void put_step(const Job& job, int32_t step, const uint4 (&rows)[2], void* staged,
                         const NoPeers&) {
  const int32_t first = Source::first_channel(step), second = Source::second_channel(step);
  const auto put = [&](int32_t channel, uint32_t x0, uint32_t y0, uint32_t x1, uint32_t y1) {
    if (channel >= job.k) return;
    *reinterpret_cast<uint4*>(static_cast<uint32_t*>(staged) + channel) = {
        low_sides(x0, y0), high_sides(x0, y0), low_sides(x1, y1), high_sides(x1, y1)};
  };
  put(first, rows[0].x, rows[1].x, rows[0].y, rows[1].y);
  put(second, rows[0].z, rows[1].z, rows[0].w, rows[1].w);
}

// Makes rows from ROW on in STAGED, then begins to copy those from NEXT on, as far as there are
// any.
template <int kRows, typename Source, typename Copied, typename Peers>
__device__ void stage(const Source& source, const Job& job, int32_t row, int32_t next,
                      const Steps& steps, const Copied (&copied)[kRows], const SharedMemory& shared,
                      void* staged, const Peers& peers) {
  // What is read a step ahead comes from farther than the rest.
  auto constants = source.constants(steps.first, job.k);
  wait_for_copies<0>();
  typename Source::Begun begun[kRows]{};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= job.m) break;
    begun[r] = source.begin(row + r, job.k, steps, copied[r], shared.partials(r), peers);
  }
  for (int32_t step = steps.first; step < steps.end; step += steps.stride) {
    typename Source::Values values[kRows]{};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r < job.m) values[r] = source.read(row + r, job.k, step, copied[r]);
    }
    const auto later = source.constants(step + steps.stride, job.k);
    uint4 made[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      made[r] = source.finish(values[r], constants, begun[r]);
      if (row + r < job.m) keep_step<Source>(job, row + r, step, made[r]);
    }
    if (job.tiles != 0) put_step<Source>(job, step, made, staged, peers);
    copy_step(source, job, next, step, copied);
    constants = later;
  }
  commit_copies();
}

// Calls WORK(tile) for the tiles of this warp.
template <typename Work>
__device__ void for_tiles(const Job& job, int rank, int ranks, const Work& work) {
  const Share tiles = share_of(job.tiles, rank, ranks);
  const int32_t warp = __shfl_sync(~0u, static_cast<int32_t>(threadIdx.x / kWarp), 0);
  const auto warps = static_cast<int32_t>(blockDim.x / kWarp);
  for (int32_t tile = tiles.first + warp; tile < tiles.end; tile += warps) work(tile);
}

// Leaves the channels of this warp's tiles in shared memory.
template <int kRows>
__device__ void keep_channels(const Job& job, int32_t tile, uint4* kept) {
  const Place place = find_place(job, tile);
  if (!place.in_segment()) return;
  const int32_t first = first_permuted(job, place);
  LaneChannels channels;
  load_channels<kRows>(job, first, channels);
  uint4* to = kept + first / kStep;
  to[0] = {channels[0], channels[1], channels[2], channels[3]};
  to[1] = {channels[4], channels[5], channels[6], channels[7]};
}

template <int kRows>
__device__ void quantize_staged_tile(const Job& job, const Place& place, int32_t row,
                                     const SharedMemory& shared, const void* staged) {
  const int32_t first = first_permuted(job, place);
  LaneChannels channels;
  if (shared.layout.channels != 0) {
    const uint4* kept = shared.channels() + first / kStep;
    const uint4 low = kept[0], high = kept[1];
    channels[0] = low.x, channels[1] = low.y, channels[2] = low.z, channels[3] = low.w;
    channels[4] = high.x, channels[5] = high.y, channels[6] = high.z, channels[7] = high.w;
  } else {
    load_channels<kRows>(job, first, channels);
  }
  quantize_tile<kRows>(job, place, row, staged, channels, shared.exchange());
}

template <int kRows, typename Source, typename Peers>
__global__ void __launch_bounds__(kMostThreads)
    quantize_kernel(const __grid_constant__ Source source, const __grid_constant__ Job job,
                    const __grid_constant__ SharedLayout layout,
                    const __grid_constant__ Peers peers) {
  extern __shared__ uint4 memory[];
  const SharedMemory shared = {reinterpret_cast<char*>(memory), layout};
  const int rank = peers.rank(), ranks = peers.count();
  const Steps steps = steps_of(job.k, rank, ranks);
  const int32_t first_step = steps.first - static_cast<int32_t>(threadIdx.x);
  // Two rows are taken where all of them is copied.
  CopiedRow<kRows == 2> copied[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    copied[r] = {shared.copied(r), first_step * kStep, layout.copied_channels};
  }
  const bool leader = threadIdx.x == 0 && rank == 0;
  const int32_t rows = gridDim.x / ranks * kRows, first_row = blockIdx.x / ranks * kRows;

  allow_next_grid();
  peers.begin();
  if (leader && first_row == 0) {
    source.prefetch_constants(job.k);
    if (job.tiles != 0 && job.permutation != nullptr) {
      prefetch(job.permutation, static_cast<uint32_t>(job.k * sizeof(int32_t)));
    }
  }
  wait_for_previous_grid();
  copy_rows(source, job, first_row, steps, copied);
  if (layout.channels != 0) {
    for_tiles(job, rank, ranks,
              [&](int32_t tile) { keep_channels<kRows>(job, tile, shared.channels()); });
  }
  peers.wait_for_begin();

  const auto make = [&](int32_t row, int place) {
    stage(source, job, row, row + rows, steps, copied, shared, shared.staged(place), peers);
    if (!leader || job.exact.values == nullptr) return;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (row + r < job.m) job.exact.special[row + r] = 0;
    }
  };
  make(first_row, 0);
  peers.synchronize();
  // Most warps have one tile and keep its place.
  Place place{};
  int32_t placed = -1;
  int staged = 0;
  const bool ahead = layout.staged_places > 1;
  for (int32_t row = first_row;; row += rows) {
    const bool last = row + rows >= job.m;
    const int next = ahead ? 1 - staged : staged;
    if (ahead && !last) make(row + rows, next);
    for_tiles(job, rank, ranks, [&](int32_t tile) {
      if (tile != placed) place = find_place(job, tile);
      placed = tile;
      quantize_staged_tile<kRows>(job, place, row, shared, shared.staged(staged));
    });
    if (last) break;
    if (!ahead) {
      // Until all have gathered; a source that normalizes waits itself. A cluster has one row only.
      if (Peers::kAlone && !Source::kNormalizes) __syncthreads();
      make(row + rows, next);
    }
    // What was made is there, and SPECIAL zero; what was gathered may be made anew, and begin() use
    // its partial sums again.
    peers.synchronize();
    staged = next;
  }
}

}  // namespace micromix::kernels::cuda
