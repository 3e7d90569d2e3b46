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

template <int kRows>
void multiply(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y, Workspace& workspace,
              cudaStream_t stream, bool overlap) {
  constexpr int kGroup = 8;
  constexpr int kLeastChunks = 8;  // of a block
  // Of a tile, whose time it takes a block about to leave sums and another to add them.
  constexpr int64_t kSharingChunks = 16;
  // How much longer blocks share tiles through memory than as clusters: fitted to an H100 (M = 32
  // to 512).
  constexpr int kLeavingChunks = 15;
  const DeviceLimits& device = device_limits();
  RingLayout layout = {kRows, RingLayout::kMostStages, largest_record(weight), arriving_lanes()};
  while (layout.bytes() > device.shared_bytes_block) --layout.stages;
  assert(layout.stages >= RingLayout::kLeastStages);

  Schedule schedule{};
  schedule.tiles = TileOrder(divide_up(weight.n, kColumns), divide_up(x.m, kRows), kGroup);
  schedule.chunks = Divisor(weight.chunks);
  const int count = schedule.tiles.count();
  const auto blocks = static_cast<int>(
      std::min<int64_t>(std::max(int64_t{count}, int64_t{count} * weight.chunks / kLeastChunks),
                        device.multiprocessors));
  int most_parts = std::min(device.multiprocessors / count, weight.chunks / kLeastChunks);
  // Sums take the ring's place.
  constexpr int kSumsBytes = kTileSums<kRows, kColumns> * int{sizeof(float)};
  if (layout.turned_offset() < kSumsBytes) most_parts = 1;
  const int parts =
      largest_clusters(&multiply_shared_tile<kRows>, kThreads, layout.bytes(), count, most_parts);
  if (parts > 1 &&
      divide_up(weight.chunks, parts) <= int64_t{count} * weight.chunks / blocks + kLeavingChunks) {
    schedule.shared = count;
    schedule.share_chunks = weight.chunks / parts;
    schedule.extra = weight.chunks % parts;
    const auto ranks = static_cast<unsigned>(parts);
    launch(&multiply_shared_tile<kRows>,
           {dim3(ranks, count), kThreads, layout.bytes(), {ranks, 1, 1}}, stream, overlap, weight,
           x, y, schedule, layout);
    return;
  }
  // In the last turn, without sharing.
  const int idle = count % blocks == 0 ? 0 : blocks - count % blocks;
  if (idle * int64_t{weight.chunks} > kSharingChunks * blocks) {
    schedule.shared = std::min(count, count % blocks + blocks);
    schedule.share_chunks = schedule.shared * weight.chunks / blocks;
    schedule.extra = schedule.shared * weight.chunks % blocks;
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
