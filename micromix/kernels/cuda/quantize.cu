// The fused quantizers. A thread block takes one or two rows at a time: it makes their BF16 values
// eight consecutive channels a thread, leaves them in shared memory, and then every four threads
// gather and quantize one block of 32 channels of both rows. Two rows lie interleaved, so that one
// gather serves both, as does packed arithmetic (block_rounding.cuh), and what is written to exact
// rows is 128 consecutive bytes. Thread blocks stay for all rows there are and ask for the next
// ones before they work on these; several on a multiprocessor overlap one's loads with another's
// work.
#include "micromix/kernels/cuda/quantize.h"

#include <algorithm>
#include <cassert>
#include <string>

#include "micromix/kernels/cuda/block_rounding.cuh"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/grid_dependency.cuh"
#include "micromix/kernels/cuda/row_sources.cuh"

namespace micromix::kernels::cuda {
namespace {

constexpr int kQuad = mx::kBlockSize / kStep;  // threads a block
[[maybe_unused]] constexpr int32_t kMostChannels = 65536;

struct SegmentJob {
  int32_t first;  // permuted channel
  int32_t blocks;
  int32_t first_block;  // in exact rows
  bool bf16;
  BlockRounding rounding;
  uint8_t* codes;
  uint8_t* scales;
};

struct Job {
  int64_t m;
  int32_t k;
  int rows_at_once;  // 1: BF16 rows in shared memory; 2: pairs of them, interleaved
  const int32_t* permutation;
  int32_t blocks;  // of exact rows; 0 where nothing is quantized
  int32_t segment_count;
  SegmentJob segments[kMostSegments];
  ExactRows exact;  // values null: not wanted
  bool codes;
  __nv_bfloat16* rows;

  __device__ RowPair pair(int64_t group) const {
    const int64_t first = group * rows_at_once;
    return {first, m - first < rows_at_once ? 1 : rows_at_once};
  }
};

// ---- Rows to shared memory

// Words of (first row's, second row's) value.
__device__ void store_interleaved(uint4* to, const uint4& first, const uint4& second) {
  constexpr uint32_t kLow = 0x5410, kHigh = 0x7632;
  to[0] = {__byte_perm(first.x, second.x, kLow), __byte_perm(first.x, second.x, kHigh),
           __byte_perm(first.y, second.y, kLow), __byte_perm(first.y, second.y, kHigh)};
  to[1] = {__byte_perm(first.z, second.z, kLow), __byte_perm(first.z, second.z, kHigh),
           __byte_perm(first.w, second.w, kLow), __byte_perm(first.w, second.w, kHigh)};
}

template <typename Source>
__device__ void stage(const Source& source, const Job& job, const RowPair& pair, uint4* staged) {
  const auto begun = source.begin(pair, job.k);
  for (int32_t step = threadIdx.x; kStep * step < job.k; step += blockDim.x) {
    const uint4 first = source.values(pair.first, 0, step, job.k, begun);
    uint4 second = {};
    if (pair.count == 2) second = source.values(pair.first + 1, 1, step, job.k, begun);
    if (job.rows != nullptr) {
      store_step(job.rows + pair.first * job.k, step, job.k, first);
      if (pair.count == 2) store_step(job.rows + (pair.first + 1) * job.k, step, job.k, second);
    }
    if (job.blocks == 0) continue;
    if (job.rows_at_once == 2) {
      store_interleaved(staged + 2 * step, first, second);
    } else {
      staged[step] = first;
    }
  }
}

// ---- Shared memory to blocks

// Eight permuted channels from CHANNEL on; the high halves are zeros where rows come singly.
__device__ void gather(const Job& job, const uint4* staged, int32_t channel, uint32_t (&x)[8]) {
  int32_t from[8];
  if (job.permutation != nullptr) {
    const auto* entries = reinterpret_cast<const int4*>(job.permutation + channel);
    const int4 low = __ldg(entries), high = __ldg(entries + 1);
    from[0] = low.x, from[1] = low.y, from[2] = low.z, from[3] = low.w;
    from[4] = high.x, from[5] = high.y, from[6] = high.z, from[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) from[i] = channel + i;
  }
  if (job.rows_at_once == 2) {
    const auto* pairs = reinterpret_cast<const uint32_t*>(staged);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = pairs[from[i]];
  } else {
    const auto* values = reinterpret_cast<const uint16_t*>(staged);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = values[from[i]];
  }
}

// The first row's eight halves of X, or the second row's.
__device__ uint4 row_of(const uint32_t (&x)[8], int r) {
  const uint32_t half = r == 0 ? 0x5410 : 0x7632;
  return {__byte_perm(x[0], x[1], half), __byte_perm(x[2], x[3], half),
          __byte_perm(x[4], x[5], half), __byte_perm(x[6], x[7], half)};
}

// Where a thread is: its quad's block, and its eight channels in it.
struct Place {
  const SegmentJob* segment;
  int32_t block;        // in exact rows
  int32_t local_block;  // in its segment; at segment->blocks begins padding
  int32_t part;         // 0 to 3
  uint32_t quad_mask;   // the quad's lanes
};

__device__ Place find_place(const Job& job, int32_t block) {
  int s = 0;
  while (s + 1 < job.segment_count && block >= job.segments[s + 1].first_block) ++s;
  const SegmentJob& segment = job.segments[s];
  const unsigned lane = threadIdx.x % kWarp;
  return {&segment, block, block - segment.first_block, static_cast<int32_t>(lane % kQuad),
          0xFu << (lane / kQuad * kQuad)};
}

// Scale bytes of the pair's two blocks, and words made of them.
struct PairScales {
  uint32_t first, second;
  __device__ uint32_t byte(int r) const { return r == 0 ? first : second; }
  __device__ uint32_t inverses() const {
    return inverse_scale(first) | inverse_scale(second) << 16;
  }
  __device__ uint32_t multipliers() const {
    return exact_multiplier(first) | exact_multiplier(second) << 16;
  }
  // All ones in the half of a finite block.
  __device__ uint32_t finite() const {
    return (first == mx::kScaleNan ? 0u : 0xFFFFu) | (second == mx::kScaleNan ? 0u : 0xFFFF0000u);
  }
};

// X of a BF16 segment has no scale, but blocks with NaN or Inf are told by the same byte.
__device__ PairScales quad_scales(const Place& place, const uint32_t (&x)[8]) {
  uint32_t amax = largest_magnitudes(x);
  amax = maximum_or_nan(amax, __shfl_xor_sync(place.quad_mask, amax, 1));
  amax = maximum_or_nan(amax, __shfl_xor_sync(place.quad_mask, amax, 2));
  const BlockRounding& rounding = place.segment->rounding;
  return {scale_byte(amax & 0xFFFFu, rounding), scale_byte(amax >> 16, rounding)};
}

// One thread a row writes the block's shift.
__device__ void store_shift(const Job& job, const Place& place, const RowPair& pair, int shift,
                            unsigned* special) {
  if (place.part >= pair.count) return;
  job.exact.shifts[place.block * job.m + pair.first + place.part] = static_cast<int8_t>(shift);
  if (shift != 0) atomicOr(special, 1u << place.part);
}

__device__ void store_exact(const Job& job, const Place& place, const RowPair& pair,
                            const uint32_t (&values)[8]) {
  const int64_t at = (place.block * job.m + pair.first) * mx::kBlockSize + place.part * kStep;
  auto* to = reinterpret_cast<uint4*>(job.exact.values + at);
  to[0] = row_of(values, 0);
  if (pair.count == 2) to[mx::kBlockSize / kStep] = row_of(values, 1);
}

// Eight codes of row R, packed: in the low BITS bytes.
__device__ uint2 packed_codes(const uint32_t (&codes)[8], int bits, int r) {
  // Four 4-bit codes fill a half, as do two 8-bit ones. Of 6-bit codes two do not reach across it.
  uint32_t twos[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) twos[i] = codes[2 * i] | codes[2 * i + 1] << bits;
  const uint32_t half = r == 0 ? 0x5410 : 0x7632;
  if (bits == 4) {
    return {__byte_perm(twos[0] | twos[1] << 8, twos[2] | twos[3] << 8, half), 0};
  }
  const uint32_t low = __byte_perm(twos[0], twos[1], half);
  const uint32_t high = __byte_perm(twos[2], twos[3], half);
  if (bits == 8) return {low, high};
  const uint32_t low24 = (low & 0xFFFu) | low >> 16 << 12;
  const uint32_t high24 = (high & 0xFFFu) | high >> 16 << 12;
  return {low24 | high24 << 24, high24 >> 8};
}

// A block's 24 bytes, six of them a thread's, as three stores of eight: the thread's own bytes from
// 2 PART on, then the next thread's.
__device__ void store_codes6(uint8_t* block, const Place& place, const uint2& own) {
  const uint64_t mine = static_cast<uint64_t>(own.y) << 32 | own.x;
  const uint64_t next = __shfl_down_sync(place.quad_mask, mine, 1, kQuad);
  if (place.part == kQuad - 1) return;
  const int skipped = 16 * place.part;
  *reinterpret_cast<uint64_t*>(block + 8 * place.part) = mine >> skipped | next << (48 - skipped);
}

__device__ void store_codes(const Job& job, const Place& place, const RowPair& pair,
                            const PairScales& scales, const uint32_t (&codes)[8]) {
  const SegmentJob& segment = *place.segment;
  const int bits = segment.rounding.bits;
  for (int r = 0; r < pair.count; ++r) {
    const int64_t at = (pair.first + r) * segment.blocks + place.local_block;
    const uint2 packed = packed_codes(codes, bits, r);
    uint8_t* block = segment.codes + at * (mx::kBlockSize / 8 * bits);
    if (bits == 4) {
      reinterpret_cast<uint32_t*>(block)[place.part] = packed.x;
    } else if (bits == 6) {
      store_codes6(block, place, packed);
    } else {
      reinterpret_cast<uint2*>(block)[place.part] = packed;
    }
    if (place.part == r) segment.scales[at] = static_cast<uint8_t>(scales.byte(r));
  }
}

__device__ void write_quantized(const Job& job, const Place& place, const RowPair& pair,
                                const uint32_t (&x)[8], unsigned* special) {
  const PairScales scales = quad_scales(place, x);
  const uint32_t inverses = scales.inverses();
  const BlockRounding rounding = place.segment->rounding;
  uint32_t out[8];
  if (job.exact.values != nullptr) {
    const uint32_t multipliers = scales.multipliers();
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = exact_values(x[i], inverses, multipliers, rounding);
    store_exact(job, place, pair, out);
    store_shift(job, place, pair, exact_shift(scales.byte(place.part)), special);
  }
  if (job.codes) {
    const uint32_t finite = scales.finite();
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = element_codes(x[i], inverses, rounding) & finite;
    store_codes(job, place, pair, scales, out);
  }
}

// Of a segment with BF16 activations: values as they are, but NaN in blocks that have NaN or Inf.
__device__ void write_bf16(const Job& job, const Place& place, const RowPair& pair,
                           uint32_t (&x)[8], unsigned* special) {
  const uint32_t finite = quad_scales(place, x).finite();
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = (x[i] & finite) | (kNans & ~finite);
  if (job.exact.values != nullptr) {
    store_exact(job, place, pair, x);
    store_shift(job, place, pair, 0, special);
  }
  if (job.codes) {
    const SegmentJob& segment = *place.segment;
    for (int r = 0; r < pair.count; ++r) {
      const int64_t block = (pair.first + r) * segment.blocks + place.local_block;
      reinterpret_cast<uint4*>(segment.codes)[block * kQuad + place.part] = row_of(x, r);
    }
  }
}

__device__ void write_padding(const Job& job, const Place& place, const RowPair& pair,
                              unsigned* special) {
  if (job.exact.values == nullptr) return;
  const uint32_t zeros[8] = {};
  store_exact(job, place, pair, zeros);
  store_shift(job, place, pair, 0, special);
}

__device__ void quantize_staged(const Job& job, const RowPair& pair, const uint4* staged,
                                unsigned* special) {
  const auto quads = static_cast<int32_t>(blockDim.x / kQuad);
  for (auto block = static_cast<int32_t>(threadIdx.x / kQuad); block < job.blocks; block += quads) {
    const Place place = find_place(job, block);
    if (place.local_block >= place.segment->blocks) {
      write_padding(job, place, pair, special);
      continue;
    }
    uint32_t x[8];
    gather(job, staged,
           place.segment->first + place.local_block * mx::kBlockSize + place.part * kStep, x);
    if (place.segment->bf16) {
      write_bf16(job, place, pair, x, special);
    } else {
      write_quantized(job, place, pair, x, special);
    }
  }
}

// ---- The kernel

template <typename Source>
__global__ void __launch_bounds__(kMostThreads)
    quantize_kernel(const __grid_constant__ Source source, const __grid_constant__ Job job) {
  extern __shared__ uint4 staged[];
  __shared__ unsigned special;  // bit r: the pair's row r has a block with a shift
  const int64_t groups = (job.m + job.rows_at_once - 1) / job.rows_at_once;
  const bool leader = threadIdx.x == 0;

  allow_next_grid();
  if (leader && blockIdx.x == 0) {
    source.prefetch_constants(job.k);
    if (job.blocks != 0 && job.permutation != nullptr) {
      prefetch(job.permutation, static_cast<uint32_t>(job.k * sizeof(int32_t)));
    }
  }
  wait_for_previous_grid();
  if (leader) {
    special = 0;
    source.prefetch_inputs(job.pair(blockIdx.x), job.k);
  }

  for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
    const RowPair pair = job.pair(group);
    if (leader && group + gridDim.x < groups) {
      source.prefetch_inputs(job.pair(group + gridDim.x), job.k);
    }
    stage(source, job, pair, staged);
    __syncthreads();
    quantize_staged(job, pair, staged, &special);
    __syncthreads();
    // Set again only after the next rows are staged, which all threads wait for.
    if (leader && job.exact.values != nullptr) {
      for (int r = 0; r < pair.count; ++r) job.exact.special[pair.first + r] = special >> r & 1;
      special = 0;
    }
  }
}

// ---- Launching

struct Limits {
  int multiprocessors;
  int64_t shared_bytes_each;  // of a multiprocessor
  int64_t shared_bytes;       // that a thread block may ask for
};

Limits device_limits() {
  int device = 0;
  check(cudaGetDevice(&device), "quantize");
  const auto attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "quantize");
    return value;
  };
  constexpr int kOwnSharedBytes = 1024;  // at least what the kernels declare
  return {attribute(cudaDevAttrMultiProcessorCount),
          attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
          attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - kOwnSharedBytes};
}

// Two rows at once where that leaves every multiprocessor work, and room for two thread blocks.
int choose_rows_at_once(const Limits& limits, int64_t m, int64_t k) {
  const int64_t both = 2 * k * static_cast<int64_t>(sizeof(__nv_bfloat16));
  return m > limits.multiprocessors && 2 * both < limits.shared_bytes_each ? 2 : 1;
}

// A step a thread, up to all threads there are where a thread block has a multiprocessor to itself;
// where they crowd, at least two on one, so that they overlap.
int choose_threads(int64_t k, bool crowded) {
  const auto warps = static_cast<int>((k + kStep * kWarp - 1) / (kStep * kWarp));
  return kWarp * std::min(warps, crowded ? kMostWarps / 2 : kMostWarps);
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
  job.blocks = plan.blocks;
  job.segment_count = plan.segment_count;
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
    made.bf16 = segment.bf16;
    // Any format's serves to find NaN and Inf.
    made.rounding = block_rounding(segment.bf16 ? mx::Format::kE4M3 : segment.format, plan.rule);
    if (outputs.codes != nullptr) {
      made.codes = outputs.codes->segments[s].codes;
      made.scales = outputs.codes->segments[s].scales;
    }
  }
  return job;
}

template <typename Source>
void launch(const PlanView& plan, int64_t m, const Source& source, const QuantizedOutputs& outputs,
            cudaStream_t stream) {
  Job job = make_job(plan, m, outputs);
  const Limits limits = device_limits();
  job.rows_at_once = choose_rows_at_once(limits, m, job.k);
  const int64_t shared =
      job.blocks == 0 ? 0 : job.rows_at_once * job.k * static_cast<int64_t>(sizeof(__nv_bfloat16));
  if (shared > limits.shared_bytes) {
    fail("quantize: a row of " + std::to_string(job.k) + " channels needs " +
         std::to_string(shared) + " bytes of shared memory, this device has " +
         std::to_string(limits.shared_bytes));
  }
  const auto kernel = quantize_kernel<Source>;
  // Always the same, as another thread may be between this and its launch.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(limits.shared_bytes)),
        "quantize");
  int64_t grid = (m + job.rows_at_once - 1) / job.rows_at_once;
  const bool crowded = grid > limits.multiprocessors;
  const int threads = choose_threads(job.k, crowded);
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
