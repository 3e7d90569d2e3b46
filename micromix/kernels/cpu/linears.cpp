#include "micromix/kernels/cpu/linears.h"

#include <algorithm>

#include "micromix/kernels/reference/dense.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/packing.h"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;

}  // namespace

MixedLinear::MixedLinear(const MixedWeight& weight) : packed_(weight), weight_(weight) {
  for (int64_t column = 0; column < weight.n; ++column) {
    uint8_t lowest = mx::kScaleOne, highest = mx::kScaleOne;
    for (const WeightSegment& segment : weight.segments) {
      const int64_t blocks = segment.channels / kBlock;
      const auto scales = segment.scales.subspan(column * blocks, blocks);
      lowest = std::min(lowest, *std::min_element(scales.begin(), scales.end()));
      highest = std::max(highest, *std::max_element(scales.begin(), scales.end()));
    }
    if (lowest < kLowestScale || highest > kHighestScale) oracle_columns_.push_back(column);
  }
}

void MixedLinear::multiply(PanelProduct& product) const {
  int64_t first_block = 0;
  for (const PackedWeight::Segment& segment : packed_.segments()) {
    const int64_t bytes = mx::packed_bytes(segment.format, kPanel * kBlock);
    const Kernels& kernels = product.kernels();
    const bool integer = product.next_segment().integer;
    const auto scales = [&](int64_t panel, int64_t block) {
      return packed_.scales(panel) + (first_block + block) * kPanel;
    };
    const auto expand = [&](int64_t panel, int64_t block, int64_t blocks, std::byte* out) {
      const uint8_t* const codes = packed_.codes(panel, segment) + block * bytes;
      if (integer) {
        kernels.expand_integer(segment.format, codes, blocks, out);
      } else {
        kernels.expand_wide(segment.format, codes, scales(panel, block), blocks, out);
      }
    };
    product.add_segment(segment.format, scales, expand);
    first_block += segment.blocks;
  }
}

void DenseLinear::multiply(PanelProduct& product) const {
  product.add_segment(
      mx::Format::kE4M3, [](int64_t, int64_t) { return nullptr; },
      [&](int64_t panel, int64_t block, int64_t blocks, std::byte* out) {
        expand_rows(product.kernels(), panel, block, blocks, out);
      });
}

// BLOCKS blocks of PANEL's rows. BF16 is read where it lies; the other types, and the end of a K
// that is no multiple of 32, by way of BF16 copies.
void DenseLinear::expand_rows(const Kernels& kernels, int64_t panel, int64_t block, int64_t blocks,
                              std::byte* out) const {
  const int64_t first = panel * kPanel;
  const int64_t columns = std::min(kPanel, weight_.n - first);
  const int64_t begin = block * kBlock;
  if (weight_.type == DenseType::kBF16 && begin + blocks * kBlock <= weight_.k) {
    const std::byte* const at = weight_.data.data() + (first * weight_.k + begin) * 2;
    kernels.expand_dense(at, weight_.k * 2, columns, blocks, out);
    return;
  }
  const int64_t count = std::min(blocks * kBlock, weight_.k - begin);
  std::vector<float> values(count);
  std::vector<mx::BFloat16> copy(columns * blocks * kBlock);
  for (int64_t j = 0; j < columns; ++j) {
    decode_dense(weight_, first + j, begin, count, values.data());
    std::transform(values.begin(), values.end(), copy.begin() + j * blocks * kBlock,
                   [](float value) { return mx::to_bfloat16(value); });
  }
  kernels.expand_dense(reinterpret_cast<const std::byte*>(copy.data()), blocks * kBlock * 2,
                       columns, blocks, out);
}

}  // namespace micromix::kernels::cpu
