#include "micromix/kernels/cuda/packed_weight.h"

#include <algorithm>
#include <climits>
#include <vector>

#include "micromix/kernels/cuda/stored_segment.cuh"

namespace micromix::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// What a row's scales are like, over all segments.
struct RowScales {
  int lowest;  // exponents of blocks that are not all zero
  int highest;
  int nan;
};

__device__ bool is_zero_block(const StoredSegment& segment, int64_t row, int64_t block) {
  const uint32_t magnitude = (1u << (bits_of(segment.format) - 1)) - 1;
  for (int i = 0; i < mx::kBlockSize; ++i) {
    if ((segment.code(row, block * mx::kBlockSize + i) & magnitude) != 0) return false;
  }
  return true;
}

__device__ bool has_nan(const StoredSegment& segment, int64_t row, int64_t block) {
  if (segment.format != mx::Format::kE4M3) return false;
  for (int i = 0; i < mx::kBlockSize; ++i) {
    const uint32_t code = segment.code(row, block * mx::kBlockSize + i);
    if ((code & 0x7F) == 0x7F) return true;
  }
  return false;
}

__global__ void begin_rows(int64_t n, RowScales* rows) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row < n) rows[row] = {INT_MAX, INT_MIN, 0};
}

__global__ void scan_blocks(StoredSegment segment, int64_t n, RowScales* rows) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = index / segment.blocks();
  if (row >= n) return;
  const uint8_t scale = segment.scales[index];
  const int64_t block = index % segment.blocks();
  if (scale == mx::kScaleNan || has_nan(segment, row, block)) {
    rows[row].nan = 1;
  } else if (!is_zero_block(segment, row, block)) {
    atomicMin(&rows[row].lowest, scale - mx::kScaleBias);
    atomicMax(&rows[row].highest, scale - mx::kScaleBias);
  }
}

// The exponent that a row's scales are relative to; 2 to it is a normal number.
__device__ int reference(const RowScales& row) {
  return max(-126, row.highest - 1);
}

__global__ void choose_factors(int64_t n, const RowScales* rows, float* factors) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= n) return;
  const RowScales row = rows[index];
  if (row.nan != 0) {
    factors[index] = __int_as_float(0x7FC00000);
  } else if (row.lowest > row.highest) {
    factors[index] = 1;  // all zero
  } else if (row.lowest - reference(row) < kLowestRelativeExponent) {
    factors[index] = 0;
  } else {
    factors[index] = __int_as_float((127 + reference(row)) << 23);
  }
}

// One thread a lane of a half of a record: 32 codes, and one of the record's 64 scales.
__global__ void fill_records(WeightView view, int index, StoredSegment stored,
                             const RowScales* rows) {
  const WeightView::Segment& segment = view.segments[index];
  const int half = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int64_t panel = blockIdx.x;
  const int64_t chunk = blockIdx.y;  // of the segment
  auto* const record = const_cast<uint8_t*>(
      record_of(view, panel, segment, segment.first_chunk + static_cast<int>(chunk)));
  auto* const words = reinterpret_cast<uint32_t*>(record);
  const mx::Format format = segment.format;
  const int word_count = code_bytes(format) / 4 / (2 * kLanes);
  for (int i = 0; i < word_count; ++i) words[threadIdx.x * word_count + i] = 0;
  __syncthreads();
  for (int value = 0; value < 32; ++value) {
    // Register value / 2 % 4 of step value / 8 % 2 of block value / 16.
    const int side = value % 2, reg = value / 2 % 4, step = value / 8 % 2, block = value / 16;
    const int row = half * 16 + reg % 2 * 8 + lane / 4;
    const int channel = block * 32 + step * 16 + reg / 2 * 8 + lane % 4 * 2 + side;
    const int64_t stored_row = panel * kPanel + row;
    const int64_t stored_channel = chunk * kChunk + channel;
    if (stored_row >= view.n || stored_channel >= segment.channels) continue;
    const uint32_t code = stored.code(stored_row, stored_channel);
    const FragmentPlace at = fragment_place(row, channel);
    if (format == mx::Format::kE4M3) {
      words[byte_word(at)] |= code << byte_shift(at);
      continue;
    }
    const auto bit = [code](int i) { return code >> i & 1; };
    // From the least: E2M1 m e0 e1 s; E2M3 m0 m1 m2 e0 e1 s; E3M2 m0 m1 e0 e1 e2 s.
    const int first = bits_of(format) == 4 ? 0 : format == mx::Format::kE2M3 ? 2 : 1;
    words[upper_word(at)] |= bit(first) << upper_bit(at, kMantissa) |
                             bit(first + 1) << upper_bit(at, kExponent0) |
                             bit(first + 2) << upper_bit(at, kExponent1) |
                             bit(bits_of(format) - 1) << upper_bit(at, kSign);
    if (bits_of(format) == 6) {
      const int other = format == mx::Format::kE2M3 ? 1 : 4;
      words[lower_word(at)] |= bit(0) << lower_bit(format, at, 0) | bit(other)
                                                                        << lower_bit(format, at, 1);
    }
  }
  const int row = threadIdx.x / kBlocksPerChunk;
  const int block = threadIdx.x % kBlocksPerChunk;
  const int64_t stored_row = panel * kPanel + row;
  const int64_t stored_block = chunk * kBlocksPerChunk + block;
  uint8_t scale = 0;
  if (stored_row < view.n && stored_block < stored.blocks() && view.factors[stored_row] > 0 &&
      !is_zero_block(stored, stored_row, stored_block)) {
    const int exponent = stored.scale(stored_row, stored_block) - mx::kScaleBias;
    scale = static_cast<uint8_t>(stored_scale(format, exponent - reference(rows[stored_row])));
  }
  record[code_bytes(format) + scale_byte(row, block)] = scale;
}

// Everything but pointers.
WeightView lay_out(const MixedWeight& weight) {
  WeightView view{};
  static_cast<WeightSegments&>(view) = lay_out_segments(weight, record_bytes);
  view.n = weight.n;
  view.panels = static_cast<int32_t>((weight.n + kPanel - 1) / kPanel);
  return view;
}

unsigned grid_of(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

}  // namespace

PackedWeight::PackedWeight(const MixedWeight& weight, cudaStream_t stream)
    : view_(lay_out(weight)), k_(weight.k) {
  const int64_t n = weight.n;
  view_.records = records_.resize(view_.panels * view_.panel_bytes);
  view_.factors = factors_.resize(n);
  if (!weight.bias.empty()) {
    bias_.assign({weight.bias.data(), weight.bias.size()});
    view_.bias = bias_.data();
  }
  const StoredSegments stored(weight);
  DeviceArray<RowScales> rows(n);
  begin_rows<<<grid_of(n), kThreads, 0, stream>>>(n, rows.data());
  for (const StoredSegment& segment : stored) {
    const int64_t blocks = n * (segment.channels / mx::kBlockSize);
    scan_blocks<<<grid_of(blocks), kThreads, 0, stream>>>(segment, n, rows.data());
  }
  choose_factors<<<grid_of(n), kThreads, 0, stream>>>(n, rows.data(), factors_.data());
  for (int i = 0; i < view_.segment_count; ++i) {
    const dim3 grid(view_.panels, view_.segments[i].chunks);
    fill_records<<<grid, 2 * kLanes, 0, stream>>>(view_, i, stored[i], rows.data());
  }
  check(cudaGetLastError(), "packing a weight");
  check(cudaStreamSynchronize(stream), "packing a weight");
  collect_oracle_rows(weight);
}

void PackedWeight::collect_oracle_rows(const MixedWeight& weight) {
  const std::vector<float> factors = factors_.to_host();
  std::vector<int32_t> rows;
  for (int64_t row = 0; row < weight.n; ++row) {
    if (factors[row] == 0) rows.push_back(static_cast<int32_t>(row));
  }
  if (rows.empty()) return;
  std::vector<uint8_t> scales;
  for (const int32_t row : rows) {
    for (const WeightSegment& segment : weight.segments) {
      const int64_t blocks = segment.channels / mx::kBlockSize;
      const auto of_row = segment.scales.subspan(row * blocks, blocks);
      scales.insert(scales.end(), of_row.begin(), of_row.end());
      if (blocks % kBlocksPerChunk != 0) scales.push_back(mx::kScaleOne);
    }
  }
  oracle_rows_.assign({rows.data(), rows.size()});
  oracle_scales_.assign({scales.data(), scales.size()});
  view_.oracle_count = static_cast<int32_t>(rows.size());
  view_.oracle_rows = oracle_rows_.data();
  view_.oracle_scales = oracle_scales_.data();
}

int largest_record(const WeightView& weight) {
  int bytes = 0;
  for (int i = 0; i < weight.segment_count; ++i) {
    bytes = std::max(bytes, int{weight.segments[i].record_bytes});
  }
  return bytes;
}

}  // namespace micromix::kernels::cuda
