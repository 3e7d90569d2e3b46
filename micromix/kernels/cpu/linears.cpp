#include "micromix/kernels/cpu/linears.h"

#include <algorithm>

#include "micromix/kernels/reference/dense.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/packing.h"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;

// A segment of a packed weight.
struct PackedSegment {
  const Kernels& kernels;
  const PackedWeight& weight;
  const PackedWeight::Segment& segment;
  int64_t first_block;
  bool integer;

  const uint8_t* scales(int64_t panel, int64_t block) const {
    return weight.scales(panel) + (first_block + block) * kPanel;
  }
  const uint8_t* codes(int64_t panel, int64_t block) const {
    return weight.codes(panel, segment) + block * mx::packed_bytes(segment.format, kPanel * kBlock);
  }
  void expand(int64_t panel, int64_t block, int64_t blocks, std::byte* out) const {
    if (integer) {
      kernels.expand_integer(segment.format, codes(panel, block), blocks, out);
    } else {
      kernels.expand_wide(segment.format, codes(panel, block), scales(panel, block), blocks, out);
    }
  }
};

// Rows of a dense weight. BF16 is read where it lies; the other types, and the end of a K that is
// no multiple of 32, by way of BF16 copies.
struct DenseRows {
  const Kernels& kernels;
  const DenseWeight& weight;

  const uint8_t* scales(int64_t, int64_t) const { return nullptr; }
  const uint8_t* codes(int64_t, int64_t) const { return nullptr; }
  void expand(int64_t panel, int64_t block, int64_t blocks, std::byte* out) const {
    const int64_t first = panel * kPanel;
    const int64_t columns = std::min(kPanel, weight.n - first);
    const int64_t begin = block * kBlock;
    if (weight.type == DenseType::kBF16 && begin + blocks * kBlock <= weight.k) {
      const std::byte* const at = weight.data.data() + (first * weight.k + begin) * 2;
      kernels.expand_dense(at, weight.k * 2, columns, blocks, out);
      return;
    }
    const int64_t count = std::min(blocks * kBlock, weight.k - begin);
    thread_local std::vector<float> values;
    thread_local std::vector<mx::BFloat16> copy;
    values.resize(count);
    copy.assign(columns * blocks * kBlock, mx::BFloat16{});
    for (int64_t j = 0; j < columns; ++j) {
      decode_dense(weight, first + j, begin, count, values.data());
      std::transform(values.begin(), values.end(), copy.begin() + j * blocks * kBlock,
                     [](float value) { return mx::to_bfloat16(value); });
    }
    kernels.expand_dense(reinterpret_cast<const std::byte*>(copy.data()), blocks * kBlock * 2,
                         columns, blocks, out);
  }
};

}  // namespace

MixedLinear::MixedLinear(const MixedWeight& weight) : packed_(weight), weight_(weight) {
  for (int64_t column = 0; column < weight.n; ++column) {
    const bool common = std::ranges::all_of(weight.segments, [&](const WeightSegment& segment) {
      const int64_t blocks = segment.channels / kBlock;
      return std::ranges::all_of(segment.scales.subspan(column * blocks, blocks), is_common);
    });
    if (!common) oracle_columns_.push_back(column);
  }
}

void MixedLinear::multiply(PanelProduct& product) const {
  int64_t first_block = 0;
  for (const PackedWeight::Segment& segment : packed_.segments()) {
    product.add_segment(segment.format, PackedSegment{product.kernels(), packed_, segment,
                                                      first_block, product.next_segment().integer});
    first_block += segment.blocks;
  }
}

void DenseLinear::multiply(PanelProduct& product) const {
  if (product.add_dense_row(weight_)) return;
  product.add_segment(mx::Format::kE4M3, DenseRows{product.kernels(), weight_});
}

}  // namespace micromix::kernels::cpu
