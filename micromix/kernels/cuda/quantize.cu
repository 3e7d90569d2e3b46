// The fused quantizers. A thread block takes one, two or four rows at a time: it makes their BF16
// values eight consecutive channels a thread, leaves them in shared memory, and then every warp
// gathers and quantizes tiles of eight blocks of 32 channels, four threads a block, of all its rows
// at once. Rows lie interleaved, so that one gather serves all, as does packed arithmetic on two
// (block_rounding.cuh), and what is written to exact rows is consecutive. A tile lies in one
// segment, so warps do not diverge. Thread blocks stay for all rows there are and ask for the next
// ones before they work on these; several on a multiprocessor overlap one's loads with another's
// work.
#include "micromix/kernels/cuda/quantize.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <string>

#include "micromix/kernels/cuda/block_rounding.cuh"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/row_sources.cuh"

namespace micromix::kernels::cuda {
namespace {

constexpr int kQuad = mx::kBlockSize / kStep;  // threads a block
constexpr int kTileBlocks = kWarp / kQuad;
static_assert(kTileBlocks % kBlocksPerChunk == 0);  // so padding takes no tile of its own

struct SegmentJob {
  int32_t first;  // permuted channel
  int32_t blocks;
  int32_t first_block;  // in exact rows
  int32_t first_tile;
  bool bf16;
  BlockRounding rounding;
  uint8_t* codes;
  uint8_t* scales;
};

struct Job {
  int64_t m;
  int32_t k;
  const int32_t* permutation;
  int32_t tiles;                       // 0 where nothing is quantized
  SegmentJob segments[kMostSegments];  // those that there are not begin after all tiles
  ExactRows exact;                     // values null: not wanted
  bool codes;
  __nv_bfloat16* rows;
};

template <int kRows>
__device__ RowGroup row_group(const Job& job, int64_t group) {
  const int64_t first = group * kRows, left = job.m - first;
  return {first, left < kRows ? static_cast<int>(left) : kRows};
}

// How many words hold a channel of all rows. Of single rows words' high halves are zeros.
template <int kRows>
constexpr int kWords = (kRows + 1) / 2;

// ---- Rows to shared memory

constexpr uint32_t kLowHalves = 0x5410, kHighHalves = 0x7632;  // __byte_perm() selectors

__device__ uint32_t word(const uint4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}

// Words of (first row's, second row's) value, then (third's, fourth's). Of four rows a step is four
// pieces of 16 bytes, which eight neighbouring lanes would leave in the same banks, were they not
// exchanged as staged_at() says.
template <int kRows>
__device__ void store_interleaved(uint4* staged, int32_t step, const uint4 (&x)[kRows]) {
  if constexpr (kRows == 1) {
    staged[step] = x[0];
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if constexpr (kRows == 2) {
        const uint32_t a = word(x[0], 2 * i), b = word(x[0], 2 * i + 1);
        const uint32_t c = word(x[1], 2 * i), d = word(x[1], 2 * i + 1);
        staged[2 * step + i] = {__byte_perm(a, c, kLowHalves), __byte_perm(a, c, kHighHalves),
                                __byte_perm(b, d, kLowHalves), __byte_perm(b, d, kHighHalves)};
      } else {
        const uint32_t a = word(x[0], i), b = word(x[1], i), c = word(x[2], i), d = word(x[3], i);
        staged[4 * step + (i ^ (step >> 1 & 3))] = {
            __byte_perm(a, b, kLowHalves), __byte_perm(c, d, kLowHalves),
            __byte_perm(a, b, kHighHalves), __byte_perm(c, d, kHighHalves)};
      }
    }
  }
}

// Where a channel's values are, in bytes. Channels of four rows have 8 bytes, pieces 16, steps 64:
// bits 4 and 5 count pieces, bits 7 and 8, which are the channel's bits 4 and 5, pairs of steps.
template <int kRows>
__device__ uint32_t staged_at(int32_t channel) {
  const uint32_t at = 2 * kRows * static_cast<uint32_t>(channel);
  return kRows == 4 ? at ^ (static_cast<uint32_t>(channel) & 0x30u) : at;
}

template <int kRows>
__device__ void put_step(const Job& job, const RowGroup& rows, int32_t step,
                         const uint4 (&x)[kRows], uint4* staged) {
  if (job.rows != nullptr) {
    __nv_bfloat16* to = job.rows + rows.first * job.k;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows.count) store_step<kRows == 1>(to + r * job.k, step, job.k, x[r]);
    }
  }
  if (job.tiles != 0) store_interleaved(staged, step, x);
}

// Threads read their first steps at once: two of single rows, where nothing else hides how long
// that takes.
template <int kRows>
constexpr int kAhead = kRows == 1 ? 2 : 1;

template <int kRows, typename Source>
__device__ void stage(const Source& source, const Job& job, const RowGroup& rows, uint4* staged) {
  typename Source::template Step<kRows> ahead[kAhead<kRows>] = {};
  uint4 x[kRows];
#pragma unroll
  for (int i = 0; i < kAhead<kRows>; ++i) {
    const int32_t step = threadIdx.x + i * blockDim.x;
    if (kStep * step < job.k) source.read(rows, step, job.k, ahead[i]);
  }
  const auto begun = source.begin(rows, job.k, ahead);
  int32_t step = threadIdx.x;
#pragma unroll
  for (int i = 0; i < kAhead<kRows>; ++i, step += blockDim.x) {
    if (kStep * step >= job.k) continue;
    source.finish(ahead[i], step, job.k, begun, x);
    put_step(job, rows, step, x, staged);
  }
  for (; kStep * step < job.k; step += blockDim.x) {
    source.reread(rows, step, job.k, ahead[0]);
    source.finish(ahead[0], step, job.k, begun, x);
    put_step(job, rows, step, x, staged);
  }
}

// ---- Shared memory to blocks

// Where a thread is: its warp's tile, its quad's block and its eight channels in that.
struct Place {
  int segment;          // the warp's
  int32_t local_block;  // in its segment; at its end begins padding, then nothing
  int part;             // 0 to 3
};

__device__ Place find_place(const Job& job, int32_t tile) {
  int segment = 0;
  int32_t first_tile = 0;
#pragma unroll
  for (int s = 1; s < kMostSegments; ++s) {
    if (tile >= job.segments[s].first_tile) segment = s, first_tile = job.segments[s].first_tile;
  }
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  return {segment, (tile - first_tile) * kTileBlocks + lane / kQuad, lane % kQuad};
}

// The channels that stand at a thread's eight permuted ones; any where it has no block.
struct Channels {
  int4 low, high;
};

__device__ Channels find_channels(const Job& job, const Place& place) {
  const SegmentJob& segment = job.segments[place.segment];
  const int32_t block = place.local_block < segment.blocks ? place.local_block : 0;
  const int32_t first = segment.first + block * mx::kBlockSize + place.part * kStep;
  if (job.permutation == nullptr) {
    return {{first, first + 1, first + 2, first + 3}, {first + 4, first + 5, first + 6, first + 7}};
  }
  const auto* entries = reinterpret_cast<const int4*>(job.permutation + first);
  return {__ldg(entries), __ldg(entries + 1)};
}

template <int kRows>
__device__ void gather(const uint4* staged, const Channels& channels,
                       uint32_t (&x)[kWords<kRows>][kStep]) {
  const int32_t from[kStep] = {channels.low.x,  channels.low.y,  channels.low.z,  channels.low.w,
                               channels.high.x, channels.high.y, channels.high.z, channels.high.w};
  const auto* bytes = reinterpret_cast<const char*>(staged);
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    const char* at = bytes + staged_at<kRows>(from[i]);
    if constexpr (kRows == 4) {
      const uint2 four = *reinterpret_cast<const uint2*>(at);
      x[0][i] = four.x, x[1][i] = four.y;
    } else if constexpr (kRows == 2) {
      x[0][i] = *reinterpret_cast<const uint32_t*>(at);
    } else {
      x[0][i] = *reinterpret_cast<const uint16_t*>(at);
    }
  }
}

// The eight halves of row R.
template <int kSomeWords>
__device__ uint4 row_of(const uint32_t (&x)[kSomeWords][kStep], int r) {
  const uint32_t(&pairs)[kStep] = x[r / 2];
  const uint32_t half = r % 2 == 0 ? kLowHalves : kHighHalves;
  return {__byte_perm(pairs[0], pairs[1], half), __byte_perm(pairs[2], pairs[3], half),
          __byte_perm(pairs[4], pairs[5], half), __byte_perm(pairs[6], pairs[7], half)};
}

// What rows' blocks are scaled by, a word for two rows.
template <int kRows>
struct Scales {
  uint32_t largest[kWords<kRows>];    // magnitudes
  uint32_t exponents[kWords<kRows>];  // scale_exponents()

  __device__ uint32_t byte(int r) const {
    const bool second = kRows == 4 && r >= 2;
    return scale_byte(second ? largest[kWords<kRows> - 1] : largest[0],
                      second ? exponents[kWords<kRows> - 1] : exponents[0], r % 2);
  }
};

template <int kRows>
__device__ Scales<kRows> quad_scales(const BlockRounding& rounding,
                                     const uint32_t (&x)[kWords<kRows>][kStep]) {
  Scales<kRows> scales;
#pragma unroll
  for (int w = 0; w < kWords<kRows>; ++w) {
    uint32_t largest = largest_magnitudes(x[w]);
    largest = maximum_or_nan(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = maximum_or_nan(largest, __shfl_xor_sync(~0u, largest, 2));
    scales.largest[w] = largest;
    scales.exponents[w] = scale_exponents(largest, rounding);
  }
  return scales;
}

template <int kRows>
__device__ void store_exact(const Job& job, const SegmentJob& segment, const Place& place,
                            const RowGroup& rows, const uint32_t (&values)[kWords<kRows>][kStep]) {
  const int64_t block = segment.first_block + place.local_block;
  auto* to =
      reinterpret_cast<uint4*>(job.exact.values + (block * job.m + rows.first) * mx::kBlockSize);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r < rows.count) to[kQuad * r + place.part] = row_of(values, r);
  }
}

// Eight codes of row R, packed: in the low BITS bytes.
template <int kBits, int kSomeWords>
__device__ uint2 packed_codes(const uint32_t (&codes)[kSomeWords][kStep], int r) {
  // Four 4-bit codes fill a half, as do two 8-bit ones. Of 6-bit codes two do not reach across it.
  uint32_t twos[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) twos[i] = codes[r / 2][2 * i] + (codes[r / 2][2 * i + 1] << kBits);
  const uint32_t half = r % 2 == 0 ? kLowHalves : kHighHalves;
  if constexpr (kBits == 4) {
    return {__byte_perm(twos[0] + (twos[1] << 8), twos[2] + (twos[3] << 8), half), 0};
  }
  const uint32_t low = __byte_perm(twos[0], twos[1], half);
  const uint32_t high = __byte_perm(twos[2], twos[3], half);
  if constexpr (kBits == 8) return {low, high};
  const uint32_t low24 = (low & 0xFFFu) | low >> 16 << 12;
  const uint32_t high24 = (high & 0xFFFu) | high >> 16 << 12;
  return {low24 | high24 << 24, high24 >> 8};
}

// All of the warp call it, with what they have STORED if anything.
template <int kRows, int kBits>
__device__ void store_codes(const SegmentJob& segment, const Place& place, const RowGroup& rows,
                            bool stored, const uint32_t (&codes)[kWords<kRows>][kStep]) {
  constexpr int kBlockBytes = mx::kBlockSize / 8 * kBits;
  uint8_t* block = segment.codes + (rows.first * segment.blocks + place.local_block) * kBlockBytes;
#pragma unroll
  for (int r = 0; r < kRows; ++r, block += segment.blocks * kBlockBytes) {
    const uint2 packed = packed_codes<kBits>(codes, r);
    const bool store = stored && r < rows.count;
    if constexpr (kBits == 4) {
      if (store) reinterpret_cast<uint32_t*>(block)[place.part] = packed.x;
    } else if constexpr (kBits == 8) {
      if (store) reinterpret_cast<uint2*>(block)[place.part] = packed;
    } else {
      // A block's 24 bytes, six of them a thread's, as three stores of eight: the thread's own
      // bytes from 2 PART on, then the next thread's.
      const uint64_t mine = static_cast<uint64_t>(packed.y) << 32 | packed.x;
      const uint64_t next = __shfl_down_sync(~0u, mine, 1, kQuad);
      const int skipped = 16 * place.part;
      if (store && place.part < kQuad - 1) {
        *reinterpret_cast<uint64_t*>(block + 8 * place.part) =
            mine >> skipped | next << (48 - skipped);
      }
    }
  }
}

template <int kRows>
__device__ void store_values(const SegmentJob& segment, const Place& place, const RowGroup& rows,
                             const uint32_t (&x)[kWords<kRows>][kStep]) {
  auto* to = reinterpret_cast<uint4*>(segment.codes) +
             (rows.first * segment.blocks + place.local_block) * kQuad + place.part;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r < rows.count) to[static_cast<int64_t>(r) * segment.blocks * kQuad] = row_of(x, r);
  }
}

// Quantizes the blocks of X and writes them. Those behind a segment's end are of zeros.
template <int kRows>
__device__ void write_tile(const Job& job, const Place& place, const RowGroup& rows,
                           uint32_t (&x)[kWords<kRows>][kStep], unsigned* special) {
  constexpr int kSomeWords = kWords<kRows>;
  const SegmentJob& segment = job.segments[place.segment];
  const BlockRounding rounding = segment.rounding;
  const bool bf16 = segment.bf16;
  const bool in_segment = place.local_block < segment.blocks;
  const Scales<kRows> scales = quad_scales<kRows>(rounding, x);

  uint32_t multipliers[kSomeWords], inverses[kSomeWords];
#pragma unroll
  for (int w = 0; w < kSomeWords; ++w) {
    multipliers[w] = bf16 ? 0u : scales.exponents[w];
    inverses[w] = inverse_scales(scales.exponents[w]);
  }

  // A thread a row writes what there is once a block.
  const bool writes_row = place.part < rows.count;
  const uint32_t byte = scales.byte(place.part % kRows);
  const int shift = bf16 ? 0 : exact_shift(byte);
  // Few blocks are not finite or need a shift: their rows' multipliers are all made again, and what
  // is in blocks that are not finite is made zeros.
  if (__any_sync(~0u, byte == mx::kScaleNan || shift != 0)) {
#pragma unroll
    for (int w = 0; w < kSomeWords; ++w) {
      const uint32_t low = scales.byte(2 * w), high = scales.byte(2 * w + 1);
      multipliers[w] = exact_multiplier(low) | exact_multiplier(high) << 16;
      const uint32_t finite =
          (low == mx::kScaleNan ? 0u : 0xFFFFu) | (high == mx::kScaleNan ? 0u : 0xFFFF0000u);
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        x[w][i] = bf16 ? (x[w][i] & finite) | (kNans & ~finite) : x[w][i] & finite;
      }
    }
  }

  uint32_t out[kSomeWords][kStep];
  // Chunks are whole, so a segment with an odd number of blocks has one of padding.
  if (job.exact.values != nullptr) {
    if (bf16) {
#pragma unroll
      for (int w = 0; w < kSomeWords; ++w) {
#pragma unroll
        for (int i = 0; i < kStep; ++i) out[w][i] = x[w][i];
      }
    } else {
#pragma unroll
      for (int w = 0; w < kSomeWords; ++w) {
#pragma unroll
        for (int i = 0; i < kStep; ++i) {
          out[w][i] = exact_values(x[w][i], inverses[w], multipliers[w], rounding);
        }
      }
    }
    const int32_t padded =
        (segment.blocks + kBlocksPerChunk - 1) / kBlocksPerChunk * kBlocksPerChunk;
    if (place.local_block < padded) {
      store_exact<kRows>(job, segment, place, rows, out);
      if (writes_row) {
        const int64_t block = segment.first_block + place.local_block;
        job.exact.shifts[block * job.m + rows.first + place.part] = static_cast<int8_t>(shift);
        if (shift != 0) atomicOr(special, 1u << place.part);
      }
    }
  }
  if (!job.codes) return;
  if (bf16) {
    if (in_segment) store_values<kRows>(segment, place, rows, x);
    return;
  }
  if (writes_row && in_segment) {
    segment.scales[(rows.first + place.part) * segment.blocks + place.local_block] =
        static_cast<uint8_t>(byte);
  }
#pragma unroll
  for (int w = 0; w < kSomeWords; ++w) {
#pragma unroll
    for (int i = 0; i < kStep; ++i) out[w][i] = element_codes(x[w][i], inverses[w], rounding);
  }
  if (rounding.bits == 4) {
    store_codes<kRows, 4>(segment, place, rows, in_segment, out);
  } else if (rounding.bits == 6) {
    store_codes<kRows, 6>(segment, place, rows, in_segment, out);
  } else {
    store_codes<kRows, 8>(segment, place, rows, in_segment, out);
  }
}

// CHANNELS are those of the warp's first tile, here and after.
template <int kRows>
__device__ void quantize_staged(const Job& job, const RowGroup& rows, const uint4* staged,
                                Channels& channels, unsigned* special) {
  const int32_t warp = __shfl_sync(~0u, static_cast<int32_t>(threadIdx.x / kWarp), 0);
  const auto warps = static_cast<int32_t>(blockDim.x / kWarp);
  for (int32_t tile = warp; tile < job.tiles; tile += warps) {
    const Place place = find_place(job, tile);
    uint32_t x[kWords<kRows>][kStep];
    gather<kRows>(staged, channels, x);
    // The next tile's, while this one is worked on.
    if (warps < job.tiles) {
      const int32_t next = tile + warps < job.tiles ? tile + warps : warp;
      channels = find_channels(job, find_place(job, next));
    }
    const bool in_segment = place.local_block < job.segments[place.segment].blocks;
    if (!__all_sync(~0u, in_segment)) {
#pragma unroll
      for (int w = 0; w < kWords<kRows>; ++w) {
#pragma unroll
        for (int i = 0; i < kStep; ++i) x[w][i] = in_segment ? x[w][i] : 0u;
      }
    }
    write_tile<kRows>(job, place, rows, x, special);
  }
}

// ---- The kernel

// Single rows are for few, which want all threads on one; else several thread blocks share a
// multiprocessor, and with it 64 registers a thread.
template <int kRows>
constexpr int kMostThreads = kRows == 1 ? 1024 : 512;

template <int kRows, typename Source>
__global__ void __launch_bounds__(kMostThreads<kRows>, 1024 / kMostThreads<kRows>)
    quantize_kernel(const __grid_constant__ Source source, const __grid_constant__ Job job) {
  extern __shared__ uint4 staged[];
  __shared__ unsigned special;  // bit r: the group's row r has a block with a shift
  const int64_t groups = (job.m + kRows - 1) / kRows;
  const bool leader = threadIdx.x == 0;

  allow_next_grid();
  if (leader && blockIdx.x == 0) {
    source.prefetch_constants(job.k);
    if (job.tiles != 0 && job.permutation != nullptr) {
      prefetch(job.permutation, static_cast<uint32_t>(job.k * sizeof(int32_t)));
    }
  }
  Channels channels{};
  if (threadIdx.x / kWarp < job.tiles) {
    channels = find_channels(job, find_place(job, threadIdx.x / kWarp));
  }
  wait_for_previous_grid();
  if (leader) {
    special = 0;
    source.prefetch_inputs(row_group<kRows>(job, blockIdx.x), job.k);
  }

  for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
    const RowGroup rows = row_group<kRows>(job, group);
    if (leader && group + gridDim.x < groups) {
      source.prefetch_inputs(row_group<kRows>(job, group + gridDim.x), job.k);
    }
    stage<kRows>(source, job, rows, staged);
    __syncthreads();
    if (job.tiles != 0) quantize_staged<kRows>(job, rows, staged, channels, &special);
    __syncthreads();
    // Set again only after the next rows are staged, which all threads wait for.
    if (leader && job.exact.values != nullptr) {
      for (int r = 0; r < rows.count; ++r) job.exact.special[rows.first + r] = special >> r & 1;
      special = 0;
    }
  }
}

// ---- Launching

// At least what the kernels declare (RMSNorm's of two rows 3 KB) and what each thread block has
// reserved, 1 KB.
constexpr int kOwnSharedBytes = 4096;

constexpr int64_t row_bytes(int64_t k) {
  return k * static_cast<int64_t>(sizeof(__nv_bfloat16));
}

// As many rows at once, up to MOST, as leave every multiprocessor work, and room for two thread
// blocks.
int choose_rows_at_once(const DeviceLimits& limits, int most, int64_t m, int64_t k) {
  if (k % kStep != 0) return 1;
  int rows = 1;
  while (2 * rows <= most && m > rows * limits.multiprocessors &&
         2 * (2 * rows * row_bytes(k) + kOwnSharedBytes) <= limits.shared_bytes_each) {
    rows *= 2;
  }
  return rows;
}

// Tiles shared out evenly, one a warp or as many as it takes. Where thread blocks crowd, up to four
// share a multiprocessor's 1024 threads, so that they overlap.
int choose_threads(const DeviceLimits& limits, int64_t k, int64_t shared_bytes, bool crowded) {
  constexpr int kWarpsEach = 32;  // with 64 registers a thread
  int most = kWarpsEach;
  if (crowded) {
    const int64_t room = limits.shared_bytes_each / (shared_bytes + kOwnSharedBytes);
    most /= static_cast<int>(std::clamp<int64_t>(room, 2, 4));
  }
  const int64_t tiles = (k + kStep * kWarp - 1) / (kStep * kWarp);
  const int64_t turns = (tiles + most - 1) / most;
  return kWarp * static_cast<int>((tiles + turns - 1) / turns);
}

Job make_job(const PlanView& plan, int64_t m, const QuantizedOutputs& outputs) {
  assert(m >= 1 && plan.k >= 1 && plan.k <= kMostChannels && plan.segment_count <= kMostSegments);
  Job job{};
  job.m = m;
  job.k = plan.k;
  job.rows = outputs.rows;
  if (outputs.exact == nullptr && outputs.codes == nullptr) return job;
  assert(plan.segment_count > 0);
  job.permutation = plan.permutation;
  job.codes = outputs.codes != nullptr;
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
      made.codes = outputs.codes->segments[s].codes;
      made.scales = outputs.codes->segments[s].scales;
    }
  }
  for (int s = plan.segment_count; s < kMostSegments; ++s) {
    job.segments[s].first_tile = std::numeric_limits<int32_t>::max();
  }
  return job;
}

template <int kRows, typename Source>
void launch_rows(const DeviceLimits& limits, const Job& job, const Source& source,
                 cudaStream_t stream) {
  const int64_t shared = job.tiles == 0 ? 0 : kRows * row_bytes(job.k);
  const int most = limits.shared_bytes_block - kOwnSharedBytes;
  if (shared > most) {
    fail("quantize: a row of " + std::to_string(job.k) + " channels needs " +
         std::to_string(shared) + " bytes of shared memory, this device has " +
         std::to_string(most));
  }
  const auto kernel = quantize_kernel<kRows, Source>;
  // Always the same, as another thread may be between this and its launch.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
        "quantize");
  int64_t grid = (job.m + kRows - 1) / kRows;
  const bool crowded = grid > limits.multiprocessors;
  const int threads = std::min(choose_threads(limits, job.k, shared, crowded), kMostThreads<kRows>);
  if (crowded) {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                        static_cast<size_t>(shared)),
          "quantize");
    grid = std::min<int64_t>(grid, int64_t{std::max(blocks, 1)} * limits.multiprocessors);
  }
  kernel<<<static_cast<unsigned>(grid), threads, static_cast<size_t>(shared), stream>>>(source,
                                                                                        job);
  check(cudaGetLastError(), "quantize");
}

template <typename Source>
void launch(const PlanView& plan, int64_t m, const Source& source, const QuantizedOutputs& outputs,
            cudaStream_t stream) {
  const Job job = make_job(plan, m, outputs);
  const DeviceLimits& limits = device_limits();
  const int rows = choose_rows_at_once(limits, Source::kMostRows, m, job.k);
  if (rows == 1) {
    launch_rows<1>(limits, job, source, stream);
  } else if (rows == 2) {
    launch_rows<2>(limits, job, source, stream);
  } else if constexpr (Source::kMostRows == 4) {
    launch_rows<4>(limits, job, source, stream);
  }
}

}  // namespace

void quantize(const PlanView& plan, int64_t m, const PlainRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream) {
  launch(plan, m, PlainSource{source}, outputs, stream);
}

void quantize(const PlanView& plan, int64_t m, const RmsNormRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream) {
  launch(plan, m, RmsNormSource{source}, outputs, stream);
}

void quantize(const PlanView& plan, int64_t m, const SwigluRows& source,
              const QuantizedOutputs& outputs, cudaStream_t stream) {
  launch(plan, m, SwigluSource{source}, outputs, stream);
}

}  // namespace micromix::kernels::cuda
