// The sums of some panels and rows, as the segments of K pass: one thread's part of a product.
//
// A panel is expanded some blocks at a time into a buffer that stays in the first-level cache, and
// every tile of rows passes it; rows, and the sums of the panels, wait in the second level. The
// order of an output's additions is that of K, so results are equal run to run.
#pragma once

#include <algorithm>
#include <cstdint>

#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/cpu/tiles.h"

namespace micromix::kernels::cpu {

// 264 rows, of which 512 channels as integers take 180 KiB, and their sums for 4 panels, 132 KiB,
// stay in a second-level cache of 1 MiB while those panels pass.
inline constexpr int64_t kMostRows = 44 * kTileRows;
inline constexpr int64_t kMostPanels = 4;

struct Part {
  int64_t first_panel, panels;  // at most kMostPanels
  int64_t first_row, rows;      // at most kMostRows; whole tiles, but for the last row
};

class PanelProduct {
 public:
  // The sums begin at zero. One a thread at a time.
  PanelProduct(const Kernels& kernels, const Tiles& tiles, const Part& part);

  const Kernels& kernels() const { return kernels_; }
  // What add_segment() multiplies next.
  const TileSegment& next_segment() const { return tiles_.segments()[segment_]; }

  // Multiplies the next segment by weights of FORMAT. SCALES(panel, block) are those of a panel's
  // blocks from BLOCK on, read where the product is an integer one; EXPAND(panel, block, blocks,
  // out) fills OUT.
  template <typename Scales, typename Expand>
  void add_segment(mx::Format format, const Scales& scales, const Expand& expand) {
    const TileSegment& segment = next_segment();
    const int64_t together = blocks_together(segment);
    for (int64_t block = 0; block < segment.blocks; block += together) {
      const int64_t blocks = std::min(together, segment.blocks - block);
      for (int64_t i = 0; i < part_.panels; ++i) {
        const int64_t panel = part_.first_panel + i;
        expand(panel, block, blocks, expanded_);
        add_blocks(segment, format, blocks, scales(panel, block), sums_ + i * part_.rows * kPanel);
      }
      row_offset_ += blocks * tile_block_bytes(segment.integer, kernels_.wide_bytes, 1);
    }
    ++segment_;
  }

  // The part's outputs of Y [m, n]: sums plus BIAS ([n] or empty), rounded to BF16 where ROUND.
  void store(int64_t n, std::span<const float> bias, bool round, float* y) const;

 private:
  int64_t blocks_together(const TileSegment& segment) const;
  // SUMS [rows][32] += the expanded blocks times the rows'.
  void add_blocks(const TileSegment& segment, mx::Format format, int64_t blocks,
                  const uint8_t* scales, float* sums) const;

  const Kernels& kernels_;
  const Tiles& tiles_;
  Part part_;
  size_t segment_ = 0;
  int64_t row_offset_ = 0;  // into a row's bytes
  float* sums_;             // [panels][rows][32]
  std::byte* expanded_;
};

}  // namespace micromix::kernels::cpu
