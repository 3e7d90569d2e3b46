// Attention over a cache in BF16, by the kernels of wide products: queries are tiles of rows, keys
// the panels they meet; then probabilities are tiles, and values the panels.
//
// A task takes some rows of all the query heads that share a key head, and the keys in blocks of
// 256, with a running maximum and sum (Milakov and Gimelshein 2018; Dao et al. 2022). Blocks begin
// at multiples of 256 whatever the query, so a row's result does not depend on the rows, chunks or
// threads beside it, as long as values are finite: one that is not also reaches earlier rows, those
// of tiles that see its 32 positions.
#pragma once

#include <cstdint>

#include "micromix/kernels/attention.h"
#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/huge_buffer.h"

namespace micromix::kernels::cpu {

// Keys and values as BF16 pairs in expanded panel blocks (kernels.h): [16][32][2]. A panel of keys
// is 32 positions, its blocks are of 32 dimensions of the head; a panel of values is 32 dimensions,
// its blocks are of 32 positions. Dimensions are filled up with zeros.
class PackedKeyValues final : public KeyValues {
 public:
  PackedKeyValues(const AttentionShape& shape, int64_t capacity);

  // Blocks of 32 dimensions.
  int64_t depth() const { return depth_; }
  // The panel of positions 32 PANEL to 32 PANEL + 31, DEPTH blocks.
  const std::byte* keys(int64_t head, int64_t panel) const {
    return keys_.bytes() + key_offset(head, panel);
  }
  // Dimensions 32 PANEL to 32 PANEL + 31 of positions from 32 BLOCK on.
  const std::byte* values(int64_t head, int64_t panel, int64_t block) const {
    return values_.bytes() + value_offset(head, panel, block);
  }
  // Bytes from a panel of values to the next.
  int64_t value_stride() const { return blocks_ * kPairsBytes; }

  static constexpr int64_t kPairsBytes = kPanel * mx::kBlockSize * 2;

 private:
  int64_t key_offset(int64_t head, int64_t panel) const {
    return (head * blocks_ + panel) * depth_ * kPairsBytes;
  }
  int64_t value_offset(int64_t head, int64_t panel, int64_t block) const {
    return (head * depth_ + panel) * value_stride() + block * kPairsBytes;
  }
  void store(const Buffer& keys, const Buffer& values) override;
  void store_positions(int64_t head, int64_t block, int64_t m, const float* keys,
                       const float* values);

  int64_t depth_;
  int64_t blocks_;  // of 32 positions
  HugeBuffer keys_;
  HugeBuffer values_;
};

// See Backend::attend.
void attend(const Kernels& kernels, const PackedKeyValues& cache, int64_t m, const float* q,
            float* out);

// In FP32 operations and BF16 roundings, what attend() may differ from exact attention on BF16
// queries, keys and values: an output's error is at most this times the sum of |p v|, where a
// score's products add up to MAGNITUDE at most in absolute value, over POSITIONS keys.
double attention_error(const AttentionShape& shape, int64_t positions, double magnitude);

}  // namespace micromix::kernels::cpu
