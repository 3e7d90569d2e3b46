// Rows of activations in tiles (kernels.h has the layout): what the CPU kernels multiply.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/huge_buffer.h"
#include "micromix/kernels/reference/oracle.h"

namespace micromix::kernels::cpu {

// Makes a tile of COUNT tiles of one row, which lie ROW_BYTES apart.
void interleave(const std::byte* rows, int count, int64_t row_bytes, std::byte* out);

class Tiles {
 public:
  // Makes room for M rows of PLAN's segments; without segments, for BF16 rows, filled up with zeros
  // to a multiple of 32 channels. Rows that were set are lost. SHARED: threads will read rows that
  // others set.
  void reset(const Kernels& kernels, const InputPlan& plan, int64_t m, bool shared);

  const std::vector<TileSegment>& segments() const { return segments_; }
  // Channels, filled up.
  int64_t k() const { return k_; }

  // Quantizes the rows of the tile that begins at FIRST; ROW(i) gives row i, which must stay until
  // all of the tile have been asked for. Tiles may be set by different threads.
  template <typename Row>
  void set_tile(const InputPlan& plan, int64_t first, const Row& row) {
    const int count = rows_at(first);
    const float* rows[kTileRows];
    for (int r = 0; r < count; ++r) rows[r] = row(first + r);
    set_rows(plan, first, rows);
  }

  // The tile that begins at ROW, a multiple of kTileRows, has this many rows.
  int rows_at(int64_t row) const {
    return static_cast<int>(std::min<int64_t>(kTileRows, m_ - row));
  }
  const std::byte* at(int64_t row) const { return bytes_.bytes() + row * row_bytes_; }
  const RowFlags& flags(int64_t row) const { return flags_[row]; }

  // Row ROW as the oracle has it, one row. The zeros of integers have lost their sign.
  QuantizedRows quantized_row(const InputPlan& plan, int64_t row) const;

 private:
  std::byte* tile(int64_t row) { return bytes_.bytes() + row * row_bytes_; }
  void set_rows(const InputPlan& plan, int64_t first, const float* const* rows);

  const Kernels* kernels_ = nullptr;
  int64_t m_ = 0;
  bool shared_ = false;
  int64_t k_ = 0;
  std::vector<TileSegment> segments_;
  int64_t row_bytes_ = 0;  // a tile of R rows has R times as many
  HugeBuffer bytes_;
  std::vector<RowFlags> flags_;
};

}  // namespace micromix::kernels::cpu
