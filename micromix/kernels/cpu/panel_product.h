// The sums of some panels and rows, as the segments of K pass, and the outputs they become: one
// thread's part of a product.
//
// A panel is expanded some blocks at a time into a buffer that stays in the first-level cache, and
// every tile of rows passes it; rows, and the sums of the panels, wait in the second level. Few
// rows take their panels in registers instead. The order of an output's additions depends on
// nothing but the number of rows, so results are equal run to run.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <span>

#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/cpu/tiles.h"

namespace micromix::kernels::cpu {

// 264 rows, of which 1024 channels as integers take 363 KiB, and their sums for 4 panels, 132 KiB,
// stay in a second-level cache of 1 MiB while those panels pass.
inline constexpr int64_t kMostRows = 33 * kTileRows;
inline constexpr int64_t kMostPanels = 4;

struct Part {
  int64_t first_panel, panels;  // at most kMostPanels
  int64_t first_row, rows;      // at most kMostRows; whole tiles, but for the last row
};

// Where outputs go: Y [m, n] = sums plus BIAS ([n] or empty), rounded to BF16 where ROUND.
struct Outputs {
  int64_t n;
  std::span<const float> bias;
  bool round;
  float* y;
};

class PanelProduct {
 public:
  // The sums begin at zero. One a thread at a time.
  PanelProduct(const Kernels& kernels, const Tiles& tiles, const Part& part,
               const Outputs& outputs);

  const Kernels& kernels() const { return kernels_; }
  // What add_segment() multiplies next.
  const TileSegment& next_segment() const { return tiles_.segments()[segment_]; }

  // Multiplies the next segment by WEIGHTS of FORMAT, and after the last one writes the part's
  // outputs. WEIGHTS has
  //   scales(panel, block), codes(panel, block): those of a panel's blocks from BLOCK on; codes are
  //     null where nothing is packed,
  //   expand(panel, block, blocks, out): fills OUT.
  template <typename Weights>
  void add_segment(mx::Format format, const Weights& weights) {
    const TileSegment& segment = next_segment();
    assert(segment.blocks > 0);
    const bool packed =
        weights.codes(part_.first_panel, 0) != nullptr && begins_with_packed(segment);
    const int64_t together = packed && fits_registers() ? segment.blocks : blocks_together(segment);
    const bool last_segment = segment_ + 1 == tiles_.segments().size();
    for (int64_t block = 0; block < segment.blocks; block += together) {
      const int64_t blocks = std::min(together, segment.blocks - block);
      const bool last = last_segment && block + blocks == segment.blocks;
      for (int64_t i = 0; i < part_.panels; ++i) {
        const int64_t panel = part_.first_panel + i;
        const Blocks of_panel{panel, blocks, format, weights.codes(panel, block),
                              weights.scales(panel, block)};
        if (!packed) weights.expand(panel, block, blocks, expanded_);
        add_blocks(segment, of_panel, packed, last);
      }
      row_offset_ += blocks * tile_block_bytes(segment.integer, kernels_.wide_bytes, 1);
    }
    ++segment_;
  }

  // The same for one row and WEIGHT [n][k] in BF16, K a multiple of 32, which is read where it
  // lies. False, and nothing done, where that is not possible.
  bool add_dense_row(const DenseWeight& weight);

 private:
  // Some blocks of a panel that are multiplied next.
  struct Blocks {
    int64_t panel, count;
    mx::Format format;
    const uint8_t* codes;
    const uint8_t* scales;
  };

  bool fits_registers() const { return part_.rows <= kPackedRows; }
  // Whether the first tile, of common scales, takes packed blocks: few rows, or integers, which it
  // leaves expanded.
  bool begins_with_packed(const TileSegment& segment) const;
  // Whether some of COUNT rows have blocks that the fast kernels do not take.
  bool is_tiny(int64_t row, int64_t count) const;
  int64_t blocks_together(const TileSegment& segment) const;
  // The blocks to multiply next of the tile that begins at ROW.
  const std::byte* row(int64_t row) const {
    return tiles_.at(row) + row_offset_ * tiles_.rows_at(row);
  }
  // The product of expanded BLOCKS and the tile at row I of the part.
  TileProduct product_of(const Blocks& blocks, int64_t i) const;
  // [rows][32] of PANEL, from row I of the part on.
  float* sums_of(int64_t panel, int64_t i) const {
    return sums_ + ((panel - part_.first_panel) * part_.rows + i) * kPanel;
  }
  // Adds BLOCKS times the rows'; they are expanded, or still PACKED for the first tile. Of the LAST
  // blocks a tile's outputs follow at once: written all together they would have to wait for
  // memory.
  void add_blocks(const TileSegment& segment, const Blocks& blocks, bool packed, bool last) const;
  // Asks for the lines that PANEL's outputs of ROWS rows, from row I of the part on, will be
  // written to, before the tile is multiplied: its stores come all at once, and those that wait for
  // memory would hold up the next tile.
  void prefetch_outputs(int64_t panel, int64_t i, int64_t rows) const;
  // Writes them.
  void store(int64_t panel, int64_t i, int64_t rows) const;

  const Kernels& kernels_;
  const Tiles& tiles_;
  Part part_;
  Outputs outputs_;
  bool some_tiny_;  // of the part's rows
  size_t segment_ = 0;
  int64_t row_offset_ = 0;  // into a row's bytes
  float* sums_;             // [panels][rows][32]
  std::byte* expanded_;
};

}  // namespace micromix::kernels::cpu
