#include "micromix/kernels/cpu/panel_product.h"

#include <algorithm>

#include <unistd.h>

#include "micromix/kernels/huge_buffer.h"

namespace micromix::kernels::cpu {
namespace {

// Bytes of expanded blocks that stay in the first-level cache while rows and their sums pass. What
// is left, 16 KiB, is enough for those; where rows are few, packed bytes pass too, faster than the
// cache can drop them, and from four tiles on that is slower than an end after half as many blocks.
constexpr int64_t kExpandedBytes = 16 << 10, kMostExpandedBytes = 32 << 10;
int64_t expanded_bytes(int64_t rows) {
  static const bool kFitsMost = sysconf(_SC_LEVEL1_DCACHE_SIZE) >= (48 << 10);
  return rows > 3 * kTileRows && kFitsMost ? kMostExpandedBytes : kExpandedBytes;
}

}  // namespace

PanelProduct::PanelProduct(const Kernels& kernels, const Tiles& tiles, const Part& part,
                           const Outputs& outputs)
    : kernels_(kernels), tiles_(tiles), part_(part), outputs_(outputs) {
  thread_local HugeBuffer sums(kMostPanels * kMostRows * kPanel *
                               static_cast<int64_t>(sizeof(float)));
  thread_local HugeBuffer expanded(kMostExpandedBytes);
  sums_ = sums.floats();
  expanded_ = expanded.bytes();
  some_tiny_ = is_tiny(part.first_row, part.rows);
  std::fill_n(sums_, part.panels * part.rows * kPanel, 0.0f);
}

bool PanelProduct::is_tiny(int64_t row, int64_t count) const {
  bool tiny = false;
  for (int64_t r = 0; r < count; ++r) tiny = tiny || tiles_.flags(row + r).tiny;
  return tiny;
}

bool PanelProduct::begins_with_packed(const TileSegment& segment) const {
  return kernels_.multiply_packed_integer != nullptr && !some_tiny_ &&
         (fits_registers() || segment.integer);
}

int64_t PanelProduct::blocks_together(const TileSegment& segment) const {
  int64_t bytes = expanded_bytes(part_.rows);
  // A weight that one tile uses, of kernels that expand every one.
  if (part_.rows <= kTileRows && kernels_.multiply_packed_integer == nullptr) bytes /= 2;
  return bytes / panel_block_bytes(segment.integer, kernels_.wide_bytes);
}

TileProduct PanelProduct::product_of(const Blocks& blocks, int64_t i) const {
  const int64_t first = part_.first_row + i;
  // Behind the last tile comes the first one, with the next panel.
  const bool is_last = i + kTileRows >= part_.rows;
  return {.rows = tiles_.rows_at(first),
          .blocks = blocks.count,
          .a = row(first),
          .w = expanded_,
          .scales = blocks.scales,
          .weight_format = blocks.format,
          .c = sums_of(blocks.panel, i),
          .next = row(is_last ? part_.first_row : first + kTileRows)};
}

void PanelProduct::add_blocks(const TileSegment& segment, const Blocks& blocks, bool packed,
                              bool last) const {
  for (int64_t i = 0; i < part_.rows; i += kTileRows) {
    TileProduct product = product_of(blocks, i);
    if (last) prefetch_outputs(blocks.panel, i, product.rows);
    const bool any = some_tiny_ && is_tiny(part_.first_row + i, product.rows);
    if (i == 0 && packed) {
      product.w = reinterpret_cast<const std::byte*>(blocks.codes);
      product.expanded = fits_registers() ? nullptr : expanded_;
      (segment.integer ? kernels_.multiply_packed_integer : kernels_.multiply_packed_wide)(product);
    } else if (segment.integer) {
      (any ? kernels_.multiply_integer_any : kernels_.multiply_integer)(product);
    } else {
      (any ? kernels_.multiply_wide_any : kernels_.multiply_wide)(product);
    }
    if (last) store(blocks.panel, i, product.rows);
  }
}

bool PanelProduct::add_dense_row(const DenseWeight& weight) {
  if (kernels_.multiply_dense_row == nullptr || part_.rows != 1 ||
      weight.type != DenseType::kBF16 || weight.k % mx::kBlockSize != 0) {
    return false;
  }
  const int64_t stride = weight.k * 2;
  for (int64_t i = 0; i < part_.panels; ++i) {
    const int64_t panel = part_.first_panel + i;
    const int64_t column = panel * kPanel;
    kernels_.multiply_dense_row(
        {1, next_segment().blocks, row(part_.first_row), weight.data.data() + column * stride,
         nullptr, mx::Format::kE4M3, sums_of(panel, 0)},
        stride, std::min(kPanel, weight.n - column));
    store(panel, 0, 1);
  }
  return true;
}

void PanelProduct::prefetch_outputs(int64_t panel, int64_t i, int64_t rows) const {
  const float* y = outputs_.y + (part_.first_row + i) * outputs_.n + panel * kPanel;
  for (int64_t r = 0; r < rows; ++r, y += outputs_.n) {
    __builtin_prefetch(y);
    __builtin_prefetch(y + kPanel / 2);
  }
}

void PanelProduct::store(int64_t panel, int64_t i, int64_t rows) const {
  const auto& [n, bias, round, y] = outputs_;
  const int64_t column = panel * kPanel;
  kernels_.store_rows(sums_of(panel, i), rows, std::min(kPanel, n - column),
                      bias.empty() ? nullptr : bias.data() + column, round,
                      y + (part_.first_row + i) * n + column, n);
}

}  // namespace micromix::kernels::cpu
