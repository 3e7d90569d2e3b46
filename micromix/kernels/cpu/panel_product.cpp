#include "micromix/kernels/cpu/panel_product.h"

#include <vector>

namespace micromix::kernels::cpu {
namespace {

// Half of a first-level cache of 32 KiB. Where a weight is used once, its packed bytes pass through
// that cache too, faster than it can drop them: a quarter.
constexpr int64_t kExpandedBytes = 16 << 10;

}  // namespace

PanelProduct::PanelProduct(const Kernels& kernels, const Tiles& tiles, const Part& part)
    : kernels_(kernels), tiles_(tiles), part_(part) {
  thread_local std::vector<float> sums(kMostPanels * kMostRows * kPanel);
  thread_local HugeBuffer expanded(kExpandedBytes);
  sums_ = sums.data();
  expanded_ = reinterpret_cast<std::byte*>(expanded.data());
  std::fill_n(sums_, part.panels * part.rows * kPanel, 0.0f);
}

int64_t PanelProduct::blocks_together(const TileSegment& segment) const {
  const int64_t bytes = part_.rows <= kTileRows ? kExpandedBytes / 2 : kExpandedBytes;
  return bytes / panel_block_bytes(segment.integer, kernels_.wide_bytes);
}

void PanelProduct::add_blocks(const TileSegment& segment, mx::Format format, int64_t blocks,
                              const uint8_t* scales, float* sums) const {
  for (int64_t row = 0; row < part_.rows; row += kTileRows) {
    const int64_t at = part_.first_row + row;
    const int count = static_cast<int>(std::min<int64_t>(kTileRows, part_.rows - row));
    const TileProduct product{count,
                              blocks,
                              tiles_.at(at) + row_offset_ * count,
                              expanded_,
                              scales,
                              format,
                              sums + row * kPanel};
    bool any = false;
    for (int r = 0; r < count; ++r) any = any || tiles_.flags(at + r).tiny;
    if (segment.integer) {
      (any ? kernels_.multiply_integer_any : kernels_.multiply_integer)(product);
    } else {
      (any ? kernels_.multiply_wide_any : kernels_.multiply_wide)(product);
    }
  }
}

void PanelProduct::store(int64_t n, std::span<const float> bias, bool round, float* y) const {
  for (int64_t i = 0; i < part_.panels; ++i) {
    const int64_t column = (part_.first_panel + i) * kPanel;
    kernels_.store_rows(sums_ + i * part_.rows * kPanel, part_.rows, std::min(kPanel, n - column),
                        bias.empty() ? nullptr : bias.data() + column, round,
                        y + part_.first_row * n + column, n);
  }
}

}  // namespace micromix::kernels::cpu
