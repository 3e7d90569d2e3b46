#include "micromix/kernels/cuda/hopper/product.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "micromix/kernels/cuda/hopper/product.cuh"
#include "micromix/kernels/cuda/launch.h"

namespace micromix::kernels::cuda::hopper {
namespace {

// One lane arrives for its warp, which has synchronized. compute-sanitizer's racecheck takes that
// for an arrival of this lane alone; for it scripts/test-gpu lets all arrive, which costs 3 % of
// the time.
int arriving_lanes() {
  static const bool all = std::getenv("MICROMIX_RACECHECK") != nullptr;
  return all ? kLanes : 1;
}

RingLayout lay_out_ring(const WeightView& weight, int rows) {
  RingLayout layout = {rows, RingLayout::kMostStages, largest_record(weight), arriving_lanes()};
  // On 9.0 there is room for six stages, whatever the formats.
  while (layout.bytes() > device_limits().shared_bytes_block) --layout.stages;
  assert(layout.stages >= RingLayout::kLeastStages);
  return layout;
}

constexpr int kLeastChunks = 8;  // of a block

// In how many parts of K clusters share each of COUNT tiles; 1 where as many BLOCKS as there may
// be, that share them through memory if at all, are quicker.
template <int kRows>
int parts_of_tiles(const RingLayout& layout, int count, int chunks, int blocks) {
  // How much longer blocks share through memory: fitted to an H100 (M = 32 to 512).
  constexpr int kLeavingChunks = 15;
  // Sums take the ring's place.
  assert(layout.turned_offset() >= (kTileSums<kRows, kColumns>)*int{sizeof(float)});
  const int most = std::min(device_limits().multiprocessors / count, chunks / kLeastChunks);
  if (most < 2) return 1;
  const int parts =
      largest_clusters(&multiply_shared_tile<kRows>, kThreads, layout.bytes(), count, most);
  const bool quicker =
      divide_up(chunks, parts) <= int64_t{count} * chunks / blocks + kLeavingChunks;
  return quicker ? parts : 1;
}

// How many of COUNT tiles BLOCKS are to share chunk by chunk, so that none is idle in the last
// turn: 0 where leaving and adding up sums takes longer.
int tiles_to_share(int count, int chunks, int blocks) {
  // Of a tile, whose time it takes a block about to leave sums and another to add them.
  constexpr int64_t kSharingChunks = 16;
  const int idle = count % blocks == 0 ? 0 : blocks - count % blocks;
  return idle * int64_t{chunks} > kSharingChunks * blocks ? std::min(count, count % blocks + blocks)
                                                          : 0;
}

template <int kRows>
void multiply(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y, Workspace& workspace,
              cudaStream_t stream, bool overlap) {
  constexpr int kGroup = 8;
  const RingLayout layout = lay_out_ring(weight, kRows);
  Schedule schedule{};
  schedule.tiles = TileOrder(divide_up(weight.n, kColumns), divide_up(x.m, kRows), kGroup);
  schedule.chunks = Divisor(weight.chunks);
  const int count = schedule.tiles.count();
  const auto blocks = static_cast<int>(
      std::min<int64_t>(std::max(int64_t{count}, int64_t{count} * weight.chunks / kLeastChunks),
                        device_limits().multiprocessors));
  // Of so few rows as 32 only where tiles are too many for clusters (gains()).
  if constexpr (kRows > 32) {
    const int parts = parts_of_tiles<kRows>(layout, count, weight.chunks, blocks);
    if (parts > 1) {
      schedule.share_out(count, weight.chunks, parts);
      const auto ranks = static_cast<unsigned>(parts);
      launch(&multiply_shared_tile<kRows>,
             {dim3(ranks, count), kThreads, layout.bytes(), {ranks, 1, 1}}, stream, overlap, weight,
             x, y, schedule, layout);
      return;
    }
  }
  if (const int shared = tiles_to_share(count, weight.chunks, blocks); shared > 0) {
    schedule.share_out(shared, shared * weight.chunks, blocks);
    workspace.reserve(int64_t{blocks} * kPanels * kRows * kLanes, int64_t{blocks} * kPanels,
                      stream);
    schedule.partials = workspace.partials.data();
    schedule.counters = workspace.counters.data();
  }
  launch(&multiply_tiles<kRows>, {dim3(blocks), kThreads, layout.bytes()}, stream, overlap, weight,
         x, y, schedule, layout);
}

}  // namespace

bool gains(const WeightView& weight, int64_t m) {
  const DeviceLimits& device = device_limits();
  // Few rows by few tiles are a short read by many, smaller blocks.
  return device.capability == 90 &&
         (m > 32 || divide_up(weight.n, kColumns) > device.multiprocessors / 2);
}

void multiply(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y, Workspace& workspace,
              cudaStream_t stream, bool overlap) {
  if (x.m <= 32) return multiply<32>(weight, x, y, workspace, stream, overlap);
  if (x.m <= 64) return multiply<64>(weight, x, y, workspace, stream, overlap);
  multiply<128>(weight, x, y, workspace, stream, overlap);
}

}  // namespace micromix::kernels::cuda::hopper
