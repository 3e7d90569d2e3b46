// Launches the fused quantizers: how many threads and thread blocks, and what each keeps in shared
// memory.
#include "micromix/kernels/cuda/quantize.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <string>

#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/launch.h"
#include "micromix/kernels/cuda/quantize_kernel.cuh"

namespace micromix::kernels::cuda {
namespace {

constexpr int kMostWarps = kMostThreads / kWarp;
constexpr int kReservedBytes = 1024;  // of each thread block's shared memory, by the device

Job make_job(const PlanView& plan, int64_t m, const QuantizedOutputs& outputs) {
  if (m > kMostRows) {
    fail("quantize: " + std::to_string(m) + " rows; at most " + std::to_string(kMostRows));
  }
  assert(m >= 1 && plan.k >= 1 && plan.k <= kMostChannels && plan.segment_count <= kMostSegments);
  Job job{};
  job.m = static_cast<int32_t>(m);
  job.k = plan.k;
  job.rows = outputs.rows;
  if (outputs.exact == nullptr && outputs.codes == nullptr) return job;
  assert(plan.segment_count > 0);
  job.permutation = plan.permutation;
  job.codes = outputs.codes != nullptr;
  job.padded_m = static_cast<int32_t>(padded_rows(m));
  if (outputs.exact != nullptr) {
    assert(outputs.exact->m == m);
    job.exact = *outputs.exact;
  }
  assert(outputs.codes == nullptr || outputs.codes->m == m);
  for (int s = 0; s < plan.segment_count; ++s) {
    const PlanView::Segment& segment = plan.segments[s];
    assert(segment.channels % mx::kBlockSize == 0);
    SegmentJob& made = job.segments[s];
    made.first = segment.first;
    made.blocks = segment.channels / mx::kBlockSize;
    made.first_block = segment.first_block;
    made.first_tile = job.tiles;
    job.tiles += (made.blocks + kTileBlocks - 1) / kTileBlocks;
    made.bf16 = segment.bf16;
    // Any format's serves to find NaN and Inf.
    made.rounding = block_rounding(segment.bf16 ? mx::Format::kE4M3 : segment.format, plan.rule);
    if (outputs.codes != nullptr) {
      assert(!segment.bf16);
      made.codes = outputs.codes->segments[s].codes;
      made.scales = outputs.codes->scales + segment.first_block * padded_rows(m);
    }
  }
  for (int s = plan.segment_count; s < kMostSegments; ++s) {
    job.segments[s].first_tile = std::numeric_limits<int32_t>::max();
  }
  return job;
}

// Of a block that has CHANNELS of each of ROWS rows as its own.
template <typename Source>
SharedLayout full_layout(const Job& job, int32_t channels, int rows) {
  SharedLayout layout{};
  layout.rows = rows;
  layout.staged_places = 1;
  if (job.tiles != 0) {
    layout.staged = rows * job.k * static_cast<int32_t>(sizeof(__nv_bfloat16));
    layout.channels = job.k * static_cast<int32_t>(sizeof(uint16_t));
  }
  if (Source::kNormalizes) {
    constexpr int32_t kFloats = 4;  // 16 bytes
    layout.partials = divide_up(divide_up(job.k, kWarpChannels), kFloats) * 16;
  }
  layout.copied = Source::kCopiedBytes;
  if (job.k % kStep == 0) layout.copied_channels = channels;
  return layout;
}

// Of one row, without what can be read from global memory instead, as far as it takes.
SharedLayout fit(SharedLayout layout, int64_t bytes) {
  if (layout.bytes() > bytes) layout.channels = 0;
  if (layout.bytes() > bytes) {
    const int64_t left = bytes - layout.staged - layout.partials;
    const int64_t chunks = std::max<int64_t>(left, 0) / (layout.copied * kWarpChannels);
    layout.copied_channels = static_cast<int32_t>(chunks * kWarpChannels);
  }
  if (layout.bytes() > bytes) {
    fail("quantize: a row needs " + std::to_string(layout.bytes()) +
         " bytes of shared memory, this device has " + std::to_string(bytes));
  }
  return layout;
}

// What a launch is made of.
struct Shape {
  int rows;         // that a block takes at a time
  int blocks_each;  // of a row: a cluster's, or 1
  int warps;
  SharedLayout layout;
};

// Where rows are fewer than multiprocessors, what counts is when the first one ends: a step a
// thread, as far as there are threads.
template <typename Source>
Shape few_rows_shape(const DeviceLimits& limits, const Job& job, bool clusters) {
  // Where a row is shared, each block has at least so many channels: a cluster costs more than less
  // work gains.
  constexpr int32_t kLeastShare = 3072;
  constexpr int kMostBlocks = 8;
  int blocks = 1;
  while (clusters && 2 * blocks <= kMostBlocks && job.k / (2 * blocks) >= kLeastShare &&
         2 * blocks * job.m <= limits.multiprocessors) {
    blocks *= 2;
  }
  const int32_t chunks = divide_up(divide_up(job.k, kWarpChannels), blocks);  // the largest share
  const int32_t channels = std::min(job.k, chunks * kWarpChannels);
  return {1, blocks, std::min<int>(chunks, kMostWarps),
          fit(full_layout<Source>(job, channels, 1), limits.shared_bytes_block)};
}

// How many warps a multiprocessor has registers for, by fours.
template <int kRows, typename Source>
int most_warps_each() {
  constexpr int kSome = 4;
  const auto kernel = quantize_kernel<kRows, Source, NoPeers>;
  return kSome * blocks_per_processor(kernel, kSome * kWarp, 0);
}

// Else so many blocks share a multiprocessor as have the most warps together without one's tiles
// coming out uneven; of equals the fewest blocks, whose warps have the fewest tiles each.
template <int kRows, typename Source>
Shape full_shape(const DeviceLimits& limits, const Job& job) {
  const int32_t tiles = job.tiles != 0 ? job.tiles : divide_up(job.k, kTileBlocks * mx::kBlockSize);
  const SharedLayout layout = full_layout<Source>(job, job.k, kRows);
  const bool exchanges = kRows == 2 && job.exact.values != nullptr;
  Shape best{};
  int most = 0;
  const int warps_each = most_warps_each<kRows, Source>();
  for (int blocks = 1; blocks <= warps_each; ++blocks) {
    const int warps = divide_up(tiles, divide_up(tiles, std::min(kMostWarps, warps_each / blocks)));
    Shape shape = {kRows, 1, warps, layout};
    if (exchanges) shape.layout.exchange = warps * kExchangePieces * 16;
    if (blocks > 1 && blocks * (shape.layout.bytes() + kReservedBytes) > limits.shared_bytes_each) {
      break;
    }
    if (blocks * warps <= most) continue;
    most = blocks * warps;
    best = shape;
  }
  return best;
}

// Two rows at a time, where there are several pairs for every multiprocessor and they fit it:
// faster on an H100; where shared memory is smaller nobody has measured.
template <typename Source>
Shape many_rows_shape(const DeviceLimits& limits, const Job& job) {
  constexpr int kLeastPairs = 3;
  if (job.tiles != 0 && job.k % kStep == 0 && job.k <= Staged<2>::kMostChannels &&
      job.m >= 2 * kLeastPairs * limits.multiprocessors) {
    Shape shape = full_shape<2, Source>(limits, job);
    if (shape.layout.bytes() <= limits.shared_bytes_block) {
      // What fits besides without a block less.
      const auto blocks = [&](const SharedLayout& layout) {
        return blocks_per_processor(quantize_kernel<2, Source, NoPeers>, shape.warps * kWarp,
                                    static_cast<int>(layout.bytes()));
      };
      SharedLayout twice = shape.layout;
      twice.staged_places = 2;
      if (twice.bytes() <= limits.shared_bytes_block && blocks(twice) == blocks(shape.layout)) {
        shape.layout = twice;
      }
      return shape;
    }
  }
  Shape shape = full_shape<1, Source>(limits, job);
  shape.layout = fit(shape.layout, limits.shared_bytes_block);
  return shape;
}

template <int kRows, typename Source, typename Peers>
void launch_shape(const DeviceLimits& limits, const Job& job, const Source& source,
                  const Shape& shape, const Peers& peers, cudaStream_t stream) {
  const auto kernel = quantize_kernel<kRows, Source, Peers>;
  const int shared_bytes = shape.layout.bytes();
  const int threads = shape.warps * kWarp;
  int64_t grid = int64_t{divide_up(job.m, kRows)} * shape.blocks_each;
  if (shape.blocks_each == 1 && grid > limits.multiprocessors) {
    const int blocks = blocks_per_processor(kernel, threads, shared_bytes);
    grid = std::min<int64_t>(grid, int64_t{blocks} * limits.multiprocessors);
  }
  cuda::launch(kernel,
               {dim3(static_cast<unsigned>(grid)),
                threads,
                shared_bytes,
                {static_cast<unsigned>(shape.blocks_each), 1, 1}},
               stream, false, source, job, shape.layout, peers);
}

template <typename Source>
void launch(const PlanView& plan, int64_t m, const Source& source, const QuantizedOutputs& outputs,
            cudaStream_t stream) {
  const Job job = make_job(plan, m, outputs);
  const DeviceLimits& limits = device_limits();
  const bool few = m <= limits.multiprocessors;
  // Only gathering needs a row in several places.
  const Shape shape =
      few ? few_rows_shape<Source>(
                limits, job,
                job.tiles != 0 && code_is_for(quantize_kernel<1, Source, ClusterPeers>, 90))
          : many_rows_shape<Source>(limits, job);
  if (shape.rows == 2) {
    launch_shape<2>(limits, job, source, shape, NoPeers{}, stream);
  } else if (shape.blocks_each == 1) {
    launch_shape<1>(limits, job, source, shape, NoPeers{}, stream);
  } else {
    launch_shape<1>(limits, job, source, shape, ClusterPeers{shape.blocks_each}, stream);
  }
}

}  // namespace

void quantize(const PlanView& plan, int64_t m, const PlainRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream) {
  launch(plan, m, PlainSource{{}, source}, outputs, stream);
}

void quantize(const PlanView& plan, int64_t m, const RmsNormRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream) {
  launch(plan, m, RmsNormSource{source}, outputs, stream);
}

void quantize(const PlanView& plan, int64_t m, const SwigluRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream) {
  launch(plan, m, SwigluSource{{}, source}, outputs, stream);
}

}  // namespace micromix::kernels::cuda
