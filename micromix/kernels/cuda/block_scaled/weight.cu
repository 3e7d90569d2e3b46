#include "micromix/kernels/cuda/block_scaled/weight.h"

#include "micromix/kernels/cuda/stored_segment.cuh"

namespace micromix::kernels::cuda::block_scaled {
namespace {

// A record's place in the weight as stored.
struct RecordSource {
  StoredSegment segment;
  int64_t n, first_row, first_channel;

  // Zero where there is none.
  __device__ uint32_t code(int row, int channel) const {
    if (first_row + row >= n || first_channel + channel >= segment.channels) return 0;
    return segment.code(first_row + row, first_channel + channel);
  }
  __device__ uint8_t scale(int row, int block) const {
    const int64_t stored_block = first_channel / mx::kBlockSize + block;
    if (first_row + row >= n || stored_block >= segment.blocks()) return mx::kScaleOne;
    return segment.scale(first_row + row, stored_block);
  }
};

__device__ uint32_t e2m1_word(const RecordSource& source, int lane, int block, int half) {
  uint32_t word = 0;
  for (int i = 0; i < 8; ++i) {
    word |= source.code(lane / 4 + half * 8, block * mx::kBlockSize + lane % 4 * 8 + i) << 4 * i;
  }
  return word;
}

__device__ uint32_t e4m3_register(const RecordSource& source, int lane, int block, int reg) {
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) {
    const int channel = block * mx::kBlockSize + fragment_channel(lane, reg, i);
    word |= e4m3_fields(source.segment.format, source.code(fragment_row(lane, reg), channel))
            << 8 * i;
  }
  return word;
}

// The bits that register REG < 3 holds of LAST, register 3, in the place of its own.
__device__ uint32_t spare_bits(mx::Format format, int reg, uint32_t last) {
  uint32_t word = 0;
  for (int which = 0; which < 2; ++which) {
    const SpareBits spare = spare_bit(format, reg, which);
    word |= (last >> spare.to & 0x01010101u) << spare.from;
  }
  return word;
}

// A warp a record.
__global__ void fill_records(WeightView view, int index, StoredSegment stored) {
  const WeightView::Segment& segment = view.segments[index];
  const mx::Format format = segment.format;
  const int lane = threadIdx.x;
  const RecordSource source = {stored, view.n, int64_t{blockIdx.x} * kRecordRows,
                               int64_t{blockIdx.y} * kChunk};
  auto* const record = const_cast<uint8_t*>(view.records) + blockIdx.x * view.panel_bytes +
                       segment.offset + int64_t{blockIdx.y} * record_bytes(format);
  auto* const words = reinterpret_cast<uint32_t*>(record);
  for (int block = 0; block < kBlocksPerChunk; ++block) {
    if (format == mx::Format::kE2M1) {
      for (int half = 0; half < 2; ++half) {
        words[lane * 4 + block * 2 + half] = e2m1_word(source, lane, block, half);
      }
      continue;
    }
    uint32_t registers[4];
    for (int reg = 0; reg < 4; ++reg) registers[reg] = e4m3_register(source, lane, block, reg);
    const int stored_registers = format == mx::Format::kE4M3 ? 4 : 3;
    for (int reg = 0; reg < stored_registers; ++reg) {
      const uint32_t spare =
          format == mx::Format::kE4M3 ? 0 : spare_bits(format, reg, registers[3]);
      words[fragment_word(format, block, lane, reg)] = registers[reg] | spare;
    }
  }
  record[code_bytes(format) + lane] = source.scale(lane / kBlocksPerChunk, lane % kBlocksPerChunk);
}

// Everything but pointers.
WeightView lay_out(const MixedWeight& weight) {
  WeightView view{};
  static_cast<WeightSegments&>(view) = lay_out_segments(weight, record_bytes);
  view.n = weight.n;
  view.panels = static_cast<int32_t>((weight.n + kRecordRows - 1) / kRecordRows);
  return view;
}

}  // namespace

Weight::Weight(const MixedWeight& weight, cudaStream_t stream)
    : view_(lay_out(weight)), k_(weight.k) {
  view_.records = records_.resize(view_.panels * view_.panel_bytes);
  if (!weight.bias.empty()) {
    bias_.assign({weight.bias.data(), weight.bias.size()});
    view_.bias = bias_.data();
  }
  const StoredSegments stored(weight);
  for (int i = 0; i < view_.segment_count; ++i) {
    const dim3 grid(view_.panels, view_.segments[i].chunks);
    fill_records<<<grid, kWarp, 0, stream>>>(view_, i, stored[i]);
  }
  check(cudaGetLastError(), "packing a weight");
  check(cudaStreamSynchronize(stream), "packing a weight");
}

}  // namespace micromix::kernels::cuda::block_scaled
