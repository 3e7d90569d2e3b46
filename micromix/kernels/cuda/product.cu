#include "micromix/kernels/cuda/product.h"

#include <algorithm>

#include "micromix/kernels/cuda/hopper/product.h"
#include "micromix/kernels/cuda/launch.h"
#include "micromix/kernels/cuda/product_few.cuh"
#include "micromix/kernels/cuda/product_tiles.cuh"

namespace micromix::kernels::cuda {
namespace {

// K in so many parts of like length, whose sums stay in shared memory.
SplitK even_split(const WeightView& weight, int parts) {
  return {parts, weight.chunks / parts, weight.chunks % parts, nullptr, nullptr};
}

SplitK make_split(const WeightView& weight, Workspace& workspace, int parts, int64_t tiles,
                  int64_t sums_of_tile, cudaStream_t stream) {
  SplitK split = even_split(weight, parts);
  if (parts == 1) return split;
  workspace.reserve(tiles * parts * sums_of_tile, tiles, stream);
  split.partials = workspace.partials.data();
  split.counters = workspace.counters.data();
  return split;
}

// How K and the panels are shared out among blocks.
struct FewPlan {
  int parts = 0;
  int columns = 0;  // of blocks, which take panels in turn
  FewLayout layout{};
};

// The split for which the busiest block takes the least time, of those whose rows of X fit its
// shared memory beside a ring of at least two records a warp. Times are in the bytes of records
// that a block multiplies meanwhile, fitted to an H100 (docs/cuda-kernels.md).
FewPlan plan_few(const WeightView& weight, int64_t m, int tiles) {
  constexpr int kMostParts = 16;
  constexpr int kMostStages = 6;
  constexpr int64_t kMeeting = 25000;   // waiting for the other parts' last sums
  constexpr int64_t kPanelEnd = 40000;  // adding up one panel's sums, per tile
  constexpr int64_t kXSpeed = 3;        // bytes of X read in the time of one of records
  const DeviceLimits& device = device_limits();
  FewPlan best;
  int64_t least = 0;
  // Blocks that share panels wait for each other, so all must run at once.
  const int most_parts = std::min({kMostParts, weight.chunks, device.multiprocessors});
  for (int parts = 1; parts <= most_parts; ++parts) {
    const int warp_chunks = divide_up(divide_up(weight.chunks, parts), kFewWarps);
    FewLayout layout = {kMostStages, largest_record(weight), warp_chunks,
                        static_cast<int>(m) * kChunk * int{sizeof(__nv_bfloat16)}};
    while (layout.stages > 1 && layout.bytes(tiles) > device.shared_bytes_block) --layout.stages;
    if (layout.stages == 1) continue;
    const int columns = std::min(device.multiprocessors / parts, weight.panels);
    // Warps take whole records, so the last turn may leave some idle.
    const int64_t panels = divide_up(weight.panels, columns);
    const int64_t records = panels * warp_chunks * kFewWarps * weight.panel_bytes / weight.chunks;
    // Too few bytes under way to cover memory's latency.
    const bool thin = layout.stages * layout.slot_bytes < 3000;
    const int64_t cost = (thin ? records * 3 / 2 : records) +
                         int64_t{weight.chunks} * layout.x_bytes / parts / kXSpeed +
                         panels * tiles * kPanelEnd + (parts > 1 ? kMeeting : 0);
    if (best.parts == 0 || cost < least) {
      best = {parts, columns, layout};
      least = cost;
    }
  }
  return best;
}

template <int kTiles>
bool multiply_few_rows(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                       Workspace& workspace, cudaStream_t stream, bool overlap) {
  const FewPlan plan = plan_few(weight, x.m, kTiles);
  if (plan.parts == 0) return false;  // K is too long
  const SplitK split =
      make_split(weight, workspace, plan.parts, weight.panels, kTiles * kPanel * 8, stream);
  constexpr void (*kKernels[])(WeightView, ExactRows, __nv_bfloat16*, SplitK, FewLayout, bool) = {
      multiply_few<kTiles, 2>, multiply_few<kTiles, 3>, multiply_few<kTiles, 4>,
      multiply_few<kTiles, 5>, multiply_few<kTiles, 6>};
  const auto kernel = kKernels[plan.layout.stages - 2];
  launch(kernel, {dim3(plan.columns, plan.parts), kFewThreads, plan.layout.bytes(kTiles)}, stream,
         overlap, weight, x, y, split, plan.layout, overlap);
  return true;
}

template <int kRows>
void multiply_many_rows(const WeightView& weight, const ExactRows& x, __nv_bfloat16* y,
                        Workspace& workspace, cudaStream_t stream, bool overlap) {
  constexpr int kGroup = 16;
  constexpr int kLeastChunks = 4;  // of a part: enough to fill the ring
  constexpr int kSums = kTileSums<kRows, kTileColumns>;
  // On a multiprocessor since sm_90, no more by taking its shared memory: where it had room for
  // more, clusters, and blocks by programmatic dependent launch, would crowd on some.
  constexpr int kBlocksEach = 2;
  const DeviceLimits& device = device_limits();
  const TileJob job = {{divide_up(weight.n, kTileColumns), divide_up(x.m, kRows), kGroup},
                       largest_record(weight)};
  const int64_t tiles = int64_t{job.order.column_tiles} * job.order.row_tiles;
  const auto kernel = &multiply_tiles<kRows>;
  const bool clusters = code_is_for(kernel, 90);
  const int shared_bytes =
      std::max({kTileStages * tile_stage_bytes<kRows>(job.slot_bytes), kSums * int{sizeof(float)},
                clusters ? device.shared_bytes_each / (kBlocksEach + 1) : 0});
  const int64_t slots =
      int64_t{device.multiprocessors} *
      (clusters ? kBlocksEach : blocks_per_processor(kernel, kTileThreads, shared_bytes));
  auto parts = static_cast<int>(
      std::clamp<int64_t>(slots / tiles, 1, std::max(1, weight.chunks / kLeastChunks)));
  if (clusters) parts = largest_clusters(kernel, kTileThreads, shared_bytes, tiles, parts);
  const SplitK split = clusters ? even_split(weight, parts)
                                : make_split(weight, workspace, parts, tiles, kSums, stream);
  LaunchShape shape = {dim3(static_cast<unsigned>(tiles), parts), kTileThreads, shared_bytes};
  if (clusters) shape.cluster.y = parts;
  launch(kernel, shape, stream, overlap, weight, x, y, split, job);
}

}  // namespace

void Workspace::reserve(int64_t floats, int64_t zeros, cudaStream_t stream) {
  if (partials.size() < floats) partials.resize(floats);
  if (counters.size() < zeros) {
    counters.resize(zeros);
    check(cudaMemsetAsync(counters.data(), 0, zeros * sizeof(uint32_t), stream), "cudaMemsetAsync");
  }
}

void multiply(const PackedWeight& packed, const ExactRows& x, __nv_bfloat16* y,
              Workspace& workspace, cudaStream_t stream, bool overlap,
              [[maybe_unused]] CudaProducts products) {
  const WeightView& weight = packed.view();
  if (x.m <= 8 && multiply_few_rows<1>(weight, x, y, workspace, stream, overlap)) return;
  if (x.m <= kFewRows && multiply_few_rows<2>(weight, x, y, workspace, stream, overlap)) return;
#ifdef MICROMIX_HOPPER
  if (products != CudaProducts::kExactMmaSync && hopper::gains(weight, x.m)) {
    return hopper::multiply(weight, x, y, workspace, stream, overlap);
  }
#endif
  if (x.m <= 32) return multiply_many_rows<32>(weight, x, y, workspace, stream, overlap);
  if (x.m <= 64) return multiply_many_rows<64>(weight, x, y, workspace, stream, overlap);
  multiply_many_rows<128>(weight, x, y, workspace, stream, overlap);
}

int64_t product_additions(int64_t k) {
  // A chain of all instructions that K takes, padded, each 16 products and the sum before them;
  // then sums of warps or parts, and the bias.
  const int64_t chunks = (k + kChunk - 1) / kChunk + kMostSegments - 1;
  return chunks * (kChunk / 16) * 17 + 2 * 132 + 1;
}

}  // namespace micromix::kernels::cuda
