#include "micromix/kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <omp.h>

#include "micromix/kernels/cpu/tiles.h"
#include "micromix/kernels/host.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;
constexpr int64_t kPairsBytes = PackedKeyValues::kPairsBytes;
constexpr int64_t kFloatBytes = sizeof(float);
// Panels of keys taken together: with 64 dimensions their keys and values are 64 KiB, which stay in
// the second-level cache while the tiles of a task pass.
constexpr int64_t kPanelsTogether = 8;
// Rows of a task, one a query and head.
constexpr int64_t kTaskRows = 6 * kTileRows;

// Where the value of channel CHANNEL and column COLUMN of a block of pairs lies.
constexpr int64_t pair_at(int64_t channel, int64_t column) {
  return ((channel / 2) * kPanel + column) * 2 + channel % 2;
}

// A thread's buffers.
struct Scratch {
  HugeBuffer queries;                 // tiles
  HugeBuffer line;                    // tiles of one row, of queries or of probabilities
  HugeBuffer probabilities;           // one tile
  HugeBuffer keys, values;            // expanded, where the kernels do not multiply pairs
  std::vector<float> row;             // a query, filled up
  HugeBuffer scores;                  // FP32 [panels][rows][32]
  HugeBuffer sums;                    // FP32 [tiles][depth][rows][32]
  std::vector<float> largest, total;  // a row
};

class Task {
 public:
  // COUNT rows from row FIRST of the query heads of HEAD: row r is query r / group, head r % group
  // of the group.
  Task(const Kernels& kernels, const PackedKeyValues& cache, int64_t m, int64_t head, int64_t first,
       int64_t count)
      : kernels_(kernels),
        cache_(cache),
        past_(cache.length() - m),
        head_(head),
        group_(cache.shape().heads / cache.shape().kv_heads),
        first_(first),
        count_(count),
        depth_(cache.depth()),
        query_bytes_(depth_ * tile_block_bytes(false, kernels.wide_bytes, 1)),
        scale_(static_cast<float>(1 / std::sqrt(static_cast<double>(cache.shape().head_dim)))),
        scratch_(scratch()) {
    const int64_t line =
        std::max(query_bytes_, kPanelsTogether * tile_block_bytes(false, kernels.wide_bytes, 1));
    scratch_.queries.reserve(count * query_bytes_);
    scratch_.line.reserve(kTileRows * line);
    scratch_.probabilities.reserve(kTileRows * line);
    scratch_.row.assign(depth_ * kBlock, 0.0f);
    scratch_.scores.reserve(kPanelsTogether * kTileRows * kPanel * kFloatBytes);
    scratch_.sums.reserve(count * depth_ * kPanel * kFloatBytes);
    std::fill_n(scratch_.sums.floats(), count * depth_ * kPanel, 0.0f);
    scratch_.largest.assign(count, -std::numeric_limits<float>::infinity());
    scratch_.total.assign(count, 0.0f);
  }

  void run(const float* q, float* out) {
    load_queries(q);
    const int64_t end = visible(count_ - 1);
    for (int64_t from = 0; from < end; from += kPanelsTogether * kPanel) {
      expand(from / kPanel, std::min(kPanelsTogether, (end - from + kPanel - 1) / kPanel));
      for (int64_t row = 0; row < count_; row += kTileRows) add_keys(row, from);
    }
    store(out);
  }

 private:
  static Scratch& scratch() {
    thread_local Scratch scratch;
    return scratch;
  }
  int tile_rows(int64_t row) const {
    return static_cast<int>(std::min<int64_t>(kTileRows, count_ - row));
  }
  // Keys that a row attends to.
  int64_t visible(int64_t row) const { return past_ + (first_ + row) / group_ + 1; }
  // Of a row's query or output.
  int64_t at(int64_t row) const {
    const AttentionShape& shape = cache_.shape();
    const int64_t r = first_ + row;
    return ((r / group_) * shape.heads + head_ * group_ + r % group_) * shape.head_dim;
  }

  void load_queries(const float* q) {
    const TileSegment segment{std::nullopt, false, depth_};
    for (int64_t row = 0; row < count_; row += kTileRows) {
      const int rows = tile_rows(row);
      for (int r = 0; r < rows; ++r) {
        std::copy_n(q + at(row + r), cache_.shape().head_dim, scratch_.row.data());
        kernels_.quantize_row(scratch_.row.data(), nullptr, {}, {&segment, 1},
                              scratch_.line.bytes() + r * query_bytes_);
      }
      interleave(scratch_.line.bytes(), rows, query_bytes_,
                 scratch_.queries.bytes() + row * query_bytes_);
    }
  }

  // Makes keys_ and values_ those of PANELS panels of 32 positions.
  void expand(int64_t panel, int64_t panels) {
    keys_ = cache_.keys(head_, panel);
    key_stride_ = depth_ * kPairsBytes;
    values_ = cache_.values(head_, 0, panel);
    value_stride_ = cache_.value_stride();
    if (kernels_.expand_pairs == nullptr) return;
    const int64_t bytes = panel_block_bytes(false, kernels_.wide_bytes);
    scratch_.keys.reserve(kPanelsTogether * depth_ * bytes);
    scratch_.values.reserve(kPanelsTogether * depth_ * bytes);
    kernels_.expand_pairs(keys_, panels * depth_, scratch_.keys.bytes());
    for (int64_t i = 0; i < depth_; ++i) {
      kernels_.expand_pairs(values_ + i * value_stride_, panels,
                            scratch_.values.bytes() + i * kPanelsTogether * bytes);
    }
    keys_ = scratch_.keys.bytes();
    key_stride_ = depth_ * bytes;
    values_ = scratch_.values.bytes();
    value_stride_ = kPanelsTogether * bytes;
  }

  // The keys from position FROM on, for the tile that begins at ROW.
  void add_keys(int64_t row, int64_t from) {
    const int rows = tile_rows(row);
    const int64_t seen = std::min(visible(row + rows - 1) - from, kPanelsTogether * kPanel);
    if (seen <= 0) return;
    const int64_t panels = (seen + kPanel - 1) / kPanel;
    float* const scores = scratch_.scores.floats();
    std::fill_n(scores, panels * rows * kPanel, 0.0f);
    for (int64_t i = 0; i < panels; ++i) {
      kernels_.multiply_wide({rows, depth_, scratch_.queries.bytes() + row * query_bytes_,
                              keys_ + i * key_stride_, nullptr, mx::Format::kE4M3,
                              scores + i * rows * kPanel});
    }
    float* const sums = scratch_.sums.floats() + row * depth_ * kPanel;
    const int64_t bytes = panels * tile_block_bytes(false, kernels_.wide_bytes, 1);
    for (int r = 0; r < rows; ++r) {
      const int64_t count = std::clamp<int64_t>(visible(row + r) - from, 0, panels * kPanel);
      const float factor = kernels_.softmax_row(
          scores + r * kPanel, rows * kPanel, panels, count, scale_, scratch_.largest[row + r],
          scratch_.total[row + r], scratch_.line.bytes() + r * bytes);
      for (int64_t i = 0; i < depth_ && factor != 1; ++i) {
        float* const of_row = sums + (i * rows + r) * kPanel;
        for (int64_t j = 0; j < kPanel; ++j) of_row[j] *= factor;
      }
    }
    interleave(scratch_.line.bytes(), rows, bytes, scratch_.probabilities.bytes());
    for (int64_t i = 0; i < depth_; ++i) {
      kernels_.multiply_wide({rows, panels, scratch_.probabilities.bytes(),
                              values_ + i * value_stride_, nullptr, mx::Format::kE4M3,
                              sums + i * rows * kPanel});
    }
  }

  void store(float* out) const {
    for (int64_t row = 0; row < count_; ++row) {
      const int64_t tile = row / kTileRows * kTileRows;
      const float* const sums = scratch_.sums.floats() + tile * depth_ * kPanel;
      const float factor = 1 / scratch_.total[row];
      for (int64_t j = 0; j < cache_.shape().head_dim; ++j) {
        out[at(row) + j] =
            sums[(j / kPanel * tile_rows(tile) + row - tile) * kPanel + j % kPanel] * factor;
      }
    }
  }

  const Kernels& kernels_;
  const PackedKeyValues& cache_;
  int64_t past_, head_, group_, first_, count_, depth_;
  int64_t query_bytes_;  // of a row
  float scale_;
  Scratch& scratch_;
  const std::byte* keys_ = nullptr;
  const std::byte* values_ = nullptr;
  int64_t key_stride_ = 0, value_stride_ = 0;  // bytes from a panel to the next
};

}  // namespace

PackedKeyValues::PackedKeyValues(const AttentionShape& shape, int64_t capacity)
    : KeyValues(shape, capacity),
      depth_((shape.head_dim + kBlock - 1) / kBlock),
      blocks_((capacity + kBlock - 1) / kBlock),
      keys_(shape.kv_heads * blocks_ * depth_ * kPairsBytes),
      values_(keys_.size()) {}

void PackedKeyValues::store(const Buffer& keys, const Buffer& values) {
  const int64_t m = keys.rows();
  const int64_t first = length() / kBlock;
  const int64_t last = (length() + m - 1) / kBlock;
#pragma omp parallel for collapse(2) schedule(static) if (m > 1)
  for (int64_t head = 0; head < shape().kv_heads; ++head) {
    for (int64_t block = first; block <= last; ++block) {
      store_positions(head, block, m, kernels::values(keys), kernels::values(values));
    }
  }
}

void PackedKeyValues::store_positions(int64_t head, int64_t block, int64_t m, const float* keys,
                                      const float* values) {
  const auto [_, heads, head_dim] = shape();
  auto* const key_panel = reinterpret_cast<mx::BFloat16*>(keys_.bytes() + key_offset(head, block));
  const auto value_block = [&](int64_t panel) {
    return reinterpret_cast<mx::BFloat16*>(values_.bytes() + value_offset(head, panel, block));
  };
  const int64_t begin = std::max(length(), block * kBlock);
  const int64_t end = std::min(length() + m, (block + 1) * kBlock);
  if (begin == block * kBlock) {  // a new block: what is behind its positions must be finite
    std::memset(key_panel, 0, depth_ * kPairsBytes);
    for (int64_t i = 0; i < depth_; ++i) std::memset(value_block(i), 0, kPairsBytes);
  }
  for (int64_t position = begin; position < end; ++position) {
    const int64_t from = ((position - length()) * heads + head) * head_dim;
    const int64_t in_block = position % kBlock;
    for (int64_t i = 0; i < head_dim; ++i) {
      key_panel[i / kBlock * (kPairsBytes / 2) + pair_at(i % kBlock, in_block)] =
          mx::to_bfloat16(keys[from + i]);
      value_block(i / kBlock)[pair_at(in_block, i % kBlock)] = mx::to_bfloat16(values[from + i]);
    }
  }
}

void attend(const Kernels& kernels, const PackedKeyValues& cache, int64_t m, const float* q,
            float* out) {
  const auto [heads, kv_heads, _] = cache.shape();
  const int64_t rows = m * (heads / kv_heads);
  // Few queries: a tile a task, or there is not enough for all threads.
  const bool few = kv_heads * rows < 2 * kTaskRows * omp_get_max_threads();
  const int64_t together = few ? kTileRows : kTaskRows;
  const int64_t tasks = (rows + together - 1) / together;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t task = 0; task < tasks; ++task) {
    for (int64_t head = 0; head < kv_heads; ++head) {
      // The last rows see the most keys: they begin first.
      const int64_t first = (tasks - 1 - task) * together;
      Task(kernels, cache, m, head, first, std::min(together, rows - first)).run(q, out);
    }
  }
}

// A probability is rounded to BF16 (2^-8), comes from exp (4 ulp, and its argument's two roundings)
// and is rescaled once a block. Its score is off by the wide product's chain of additions. A
// weight, the quotient of a probability and their sum, is then off by twice that, relative;
// its products with values are summed one by one.
double attention_error(const AttentionShape& shape, int64_t positions, double magnitude) {
  const double scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
  const double blocks = static_cast<double>((positions + 31) / 32);
  const double depth = static_cast<double>((shape.head_dim + 31) / 32);
  const double score = scale * magnitude * (32 * depth + 3) * 0x1p-23;
  const double rescaling = (blocks / kPanelsTogether + 1) * (6 + 2 * scale * magnitude) * 0x1p-23;
  const double probability = 0x1p-8 + score + rescaling + 6 * 0x1p-23;
  const double sums = (32 * blocks + blocks / kPanelsTogether + 2) * 0x1p-23;
  return 2 * probability / (1 - probability) * (1 + sums) + 2 * sums;
}

}  // namespace micromix::kernels::cpu
