// The kernel of the fused quantizers. A thread block, or a cluster where rows are few, takes a row:
// it makes the row's BF16 values, leaves them in shared memory, and then every warp gathers and
// quantizes tiles. Thread blocks stay for all rows there are; a thread that has read its part of
// one row from where it was copied to begins to copy the next, so that memory works through all of
// it.
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
  int32_t staged;           // bytes of a row as BF16
  int32_t channels;         // bytes of the permutation; 0: it is read from global memory
  int32_t partials;         // bytes
  int32_t copied;           // bytes a channel of copied inputs
  int32_t copied_channels;  // a multiple of kWarpChannels, or all of a block's

  int64_t bytes() const {
    return int64_t{staged} + channels + partials + int64_t{copied} * copied_channels;
  }
};

struct SharedMemory {
  char* memory;
  const SharedLayout& layout;

  __device__ uint16_t* staged() const { return reinterpret_cast<uint16_t*>(memory); }
  __device__ uint4* channels() const { return reinterpret_cast<uint4*>(memory + layout.staged); }
  __device__ float* partials() const {
    return reinterpret_cast<float*>(memory + layout.staged + layout.channels);
  }
  __device__ char* copied() const {
    return memory + layout.staged + layout.channels + layout.partials;
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

// Whether the channels of a step, or its first quad's, are of the row and among the copied ones.
template <typename Source>
__device__ bool copies_step(const CopiedRow& copied, int32_t step, int32_t k) {
  const int32_t channel = Source::first_channel(step);
  return channel < k && copied.has(channel);
}

template <typename Source>
__device__ void copy_row(const Source& source, const Job& job, int64_t row, const Steps& steps,
                         const CopiedRow& to) {
  for (int32_t step = steps.first; step < steps.end; step += steps.stride) {
    if (copies_step<Source>(to, step, job.k)) source.copy(row, job.k, step, to);
  }
  commit_copies();
}

// The BF16 values of a step to where rows are kept and to the blocks that gather.
template <typename Source, typename Peers>
__device__ void put_step(const Job& job, int64_t row, int32_t step, const uint4& x,
                         uint16_t* staged, const Peers& peers) {
  const int32_t first = Source::first_channel(step), second = Source::second_channel(step);
  const uint2 low = {x.x, x.y}, high = {x.z, x.w};
  if (job.rows != nullptr) {
    store_quad(job.rows + row * job.k, first, job.k, low);
    store_quad(job.rows + row * job.k, second, job.k, high);
  }
  if (job.tiles == 0) return;
  if (second == first + kQuad) {
    if (first < job.k) peers.store(reinterpret_cast<uint4*>(staged + first), x);
  } else {
    if (first < job.k) peers.store(reinterpret_cast<uint2*>(staged + first), low);
    if (second < job.k) peers.store(reinterpret_cast<uint2*>(staged + second), high);
  }
}

// Makes a row, then begins to copy NEXT where that is one.
template <typename Source, typename Peers>
__device__ void stage(const Source& source, const Job& job, int64_t row, int64_t next,
                      const Steps& steps, const CopiedRow& copied, const SharedMemory& shared,
                      const Peers& peers) {
  // What is read a step ahead comes from farther than the rest.
  auto constants = source.constants(steps.first, job.k);
  wait_for_copies<0>();
  const auto begun = source.begin(row, job.k, steps, copied, shared.partials(), peers);
  for (int32_t step = steps.first; step < steps.end; step += steps.stride) {
    const auto values = source.read(row, job.k, step, copied);
    const auto later = source.constants(step + steps.stride, job.k);
    put_step<Source>(job, row, step, source.finish(values, constants, begun), shared.staged(),
                     peers);
    if (next < job.m && copies_step<Source>(copied, step, job.k)) {
      source.copy(next, job.k, step, copied);
    }
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
__device__ inline void keep_channels(const Job& job, int32_t tile, uint4* kept) {
  const Place place = find_place(job, tile);
  if (!place.in_segment) return;
  const int32_t first = first_permuted(job, place);
  uint32_t channels[kWords];
  load_channels(job, first, channels);
  uint4* to = kept + first / kStep;
  to[0] = {channels[0], channels[1], channels[2], channels[3]};
  to[1] = {channels[4], channels[5], channels[6], channels[7]};
}

__device__ inline void quantize_staged_tile(const Job& job, int32_t tile, int64_t row,
                                            const SharedMemory& shared) {
  const Place place = find_place(job, tile);
  const int32_t first = first_permuted(job, place);
  uint32_t channels[kWords] = {};
  if (place.in_segment && shared.layout.channels != 0) {
    const uint4* kept = shared.channels() + first / kStep;
    const uint4 low = kept[0], high = kept[1];
    channels[0] = low.x, channels[1] = low.y, channels[2] = low.z, channels[3] = low.w;
    channels[4] = high.x, channels[5] = high.y, channels[6] = high.z, channels[7] = high.w;
  } else if (place.in_segment) {
    load_channels(job, first, channels);
  }
  quantize_tile(job, place, row, shared.staged(), channels);
}

template <typename Source, typename Peers>
__global__ void __launch_bounds__(kMostThreads)
    quantize_kernel(const __grid_constant__ Source source, const __grid_constant__ Job job,
                    const __grid_constant__ SharedLayout layout,
                    const __grid_constant__ Peers peers) {
  extern __shared__ uint4 memory[];
  const SharedMemory shared = {reinterpret_cast<char*>(memory), layout};
  const int rank = peers.rank(), ranks = peers.count();
  const Steps steps = steps_of(job.k, rank, ranks);
  const int32_t first_step = steps.first - static_cast<int32_t>(threadIdx.x);
  const CopiedRow copied = {shared.copied(), first_step * kStep, layout.copied_channels};
  const bool leader = threadIdx.x == 0 && rank == 0;
  const int64_t rows = gridDim.x / ranks, first_row = blockIdx.x / ranks;

  allow_next_grid();
  peers.begin();
  if (leader && first_row == 0) {
    source.prefetch_constants(job.k);
    if (job.tiles != 0 && job.permutation != nullptr) {
      prefetch(job.permutation, static_cast<uint32_t>(job.k * sizeof(int32_t)));
    }
  }
  wait_for_previous_grid();
  copy_row(source, job, first_row, steps, copied);
  if (layout.channels != 0) {
    for_tiles(job, rank, ranks, [&](int32_t tile) { keep_channels(job, tile, shared.channels()); });
  }
  peers.wait_for_begin();

  for (int64_t row = first_row; row < job.m; row += rows) {
    // Until the row before has been gathered; a source that normalizes waits itself.
    if (Peers::kAlone && !Source::kNormalizes && row != first_row) __syncthreads();
    stage(source, job, row, row + rows, steps, copied, shared, peers);
    if (leader && job.exact.values != nullptr) job.exact.special[row] = 0;
    // Where nothing is quantized, for what begin() uses again.
    peers.synchronize();
    for_tiles(job, rank, ranks,
              [&](int32_t tile) { quantize_staged_tile(job, tile, row, shared); });
  }
}

}  // namespace micromix::kernels::cuda
