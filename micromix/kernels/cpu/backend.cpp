// Threads share out panels of 32 output columns. A panel is expanded some blocks at a time into a
// buffer that stays in the first-level cache, and every tile of rows passes it; rows, and the sums
// of some panels, wait in the second level. The order of an output's additions is that of K
// whatever the threads, so results are equal run to run.
#include "micromix/kernels/cpu/backend.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include <omp.h>

#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/cpu/panels.h"
#include "micromix/kernels/cpu/tiles.h"
#include "micromix/kernels/reference/dense.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::kernels {
namespace {

using cpu::Kernels;
using cpu::kPanel;
using cpu::kTileRows;
using cpu::PackedWeight;
using cpu::Tiles;
using cpu::TileSegment;

constexpr int64_t kBlock = mx::kBlockSize;
// Half of a first-level cache of 32 KiB. Where a weight is used once, its packed bytes pass through
// that cache too, faster than it can drop them: a quarter.
constexpr int64_t kExpandedBytes = 16 << 10;
constexpr int64_t expanded_bytes(int64_t rows) {
  return rows <= kTileRows ? kExpandedBytes / 2 : kExpandedBytes;
}
// 240 rows, of which 512 channels as integers take 165 KiB, and their sums for 4 panels, 120 KiB,
// stay in a second-level cache of 1 MiB while those panels pass.
constexpr int64_t kRowsTogether = 40 * kTileRows;
constexpr int64_t kPanelsTogether = 4;

// A part of a product that one thread makes.
struct Part {
  int64_t first_panel, panels;
  int64_t first_row, rows;
};

struct CpuInput final : Input {
  int64_t m = 0;
  InputPlan plan;
  std::vector<float> rows;  // [m, k] before rounding, where the plan keeps them
  Tiles mixed;              // where the plan quantizes
  // What dense readers multiply, made when the first asks.
  mutable std::once_flag dense_once;
  mutable Tiles dense;
};

class MixedLinear final : public Linear {
 public:
  explicit MixedLinear(const MixedWeight& weight) : packed_(weight), weight_(weight) {
    for (int64_t column = 0; column < weight.n; ++column) {
      uint8_t lowest = mx::kScaleOne, highest = mx::kScaleOne;
      for (const WeightSegment& segment : weight.segments) {
        const int64_t blocks = segment.channels / kBlock;
        const auto scales = segment.scales.subspan(column * blocks, blocks);
        lowest = std::min(lowest, *std::min_element(scales.begin(), scales.end()));
        highest = std::max(highest, *std::max_element(scales.begin(), scales.end()));
      }
      if (lowest < cpu::kLowestScale || highest > cpu::kHighestScale) {
        oracle_columns_.push_back(column);
      }
    }
  }

  int64_t n() const override { return packed_.n(); }
  int64_t k() const override { return packed_.k(); }
  const PackedWeight& packed() const { return packed_; }
  const std::vector<float>& bias() const { return weight_.bias; }
  // As it was given; its codes are read for oracle columns and rows only.
  const MixedWeight& weight() const { return weight_; }
  const std::vector<int64_t>& oracle_columns() const { return oracle_columns_; }

 private:
  PackedWeight packed_;
  MixedWeight weight_;
  std::vector<int64_t> oracle_columns_;
};

class DenseLinear final : public Linear {
 public:
  explicit DenseLinear(const DenseWeight& weight) : weight_(weight) {}

  int64_t n() const override { return weight_.n; }
  int64_t k() const override { return weight_.k; }
  const DenseWeight& weight() const { return weight_; }

 private:
  DenseWeight weight_;
};

// The sums of some panels and up to kRowsTogether rows, as the segments of K pass.
class PanelProduct {
 public:
  PanelProduct(const Kernels& kernels, const Tiles& tiles, const Part& part)
      : kernels_(kernels), tiles_(tiles), part_(part) {
    thread_local std::vector<float> sums(kPanelsTogether * kRowsTogether * kPanel);
    thread_local cpu::HugeBuffer expanded(kExpandedBytes);
    sums_ = sums.data();
    expanded_ = reinterpret_cast<std::byte*>(expanded.data());
    std::fill_n(sums_, part.panels * part.rows * kPanel, 0.0f);
  }

  // Multiplies the next segment. SCALES(panel) are its scales, EXPAND(panel, first block, blocks,
  // out) fills OUT.
  template <typename Scales, typename Expand>
  void add_segment(const TileSegment& segment, mx::Format format, const Scales& scales,
                   const Expand& expand) {
    const int64_t block_bytes = cpu::panel_block_bytes(segment.integer, kernels_.wide_bytes);
    const int64_t together = expanded_bytes(part_.rows) / block_bytes;
    for (int64_t block = 0; block < segment.blocks; block += together) {
      const int64_t blocks = std::min(together, segment.blocks - block);
      for (int64_t i = 0; i < part_.panels; ++i) {
        const int64_t panel = part_.first_panel + i;
        expand(panel, block, blocks, expanded_);
        add_blocks(segment, format, blocks, scales(panel) + block * kPanel,
                   sums_ + i * part_.rows * kPanel);
      }
      row_offset_ += blocks * cpu::tile_block_bytes(segment.integer, kernels_.wide_bytes, 1);
    }
  }

  // Calls USE(row, first column, columns, sums) for every row of every panel; N columns in all.
  template <typename Use>
  void for_each_row(int64_t n, const Use& use) const {
    for (int64_t row = 0; row < part_.rows; ++row) {
      for (int64_t i = 0; i < part_.panels; ++i) {
        const int64_t column = (part_.first_panel + i) * kPanel;
        use(part_.first_row + row, column, std::min(kPanel, n - column),
            sums_ + (i * part_.rows + row) * kPanel);
      }
    }
  }

 private:
  void add_blocks(const TileSegment& segment, mx::Format format, int64_t blocks,
                  const uint8_t* scales, float* sums) {
    for (int64_t row = 0; row < part_.rows; row += kTileRows) {
      const int64_t at = part_.first_row + row;
      const int count = static_cast<int>(std::min<int64_t>(kTileRows, part_.rows - row));
      const cpu::TileProduct product{count,
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

  const Kernels& kernels_;
  const Tiles& tiles_;
  Part part_;
  int64_t row_offset_ = 0;  // into a row's bytes
  float* sums_;
  std::byte* expanded_;
};

// Calls WORK(part) for all parts of M rows and N columns, on all threads. Few rows are bound by
// reading weights: they take a panel at a time, and a thread a run of panels that lie one after
// another.
template <typename Work>
void for_each_part(int64_t m, int64_t n, const Work& work) {
  const int64_t panels = (n + kPanel - 1) / kPanel;
  const int64_t share = std::max<int64_t>(1, panels / (4 * omp_get_max_threads()));
  const bool few = m <= 8 * kTileRows;
  const int64_t together = few ? 1 : std::min(share, kPanelsTogether);
  const int64_t parts = (panels + together - 1) / together;
  const int64_t run = few ? share : 1;
  for (int64_t row = 0; row < m; row += kRowsTogether) {
#pragma omp parallel for schedule(dynamic, run)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t panel = part * together;
      work(Part{panel, std::min(together, panels - panel), row, std::min(kRowsTogether, m - row)});
    }
  }
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const Kernels& kernels) : kernels_(kernels) {}

  std::unique_ptr<Linear> prepare(const DenseWeight& weight) const override {
    return std::make_unique<DenseLinear>(weight);
  }
  std::unique_ptr<Linear> prepare(const MixedWeight& weight) const override {
    return std::make_unique<MixedLinear>(weight);
  }

  std::unique_ptr<Input> input(const InputPlan& plan, int64_t m, const float* x) const override {
    return make_input(plan, m, [&](int64_t row, float*) { return x + row * plan.k; });
  }

  std::unique_ptr<Input> input_rmsnorm(const InputPlan& plan, int64_t m, const float* x,
                                       std::span<const float> gain, float eps) const override {
    return make_input(plan, m, [&](int64_t row, float* out) {
      kernels_.rmsnorm_row(x + row * plan.k, gain.data(), plan.k, eps, out);
      return out;
    });
  }

  std::unique_ptr<Input> input_swiglu(const InputPlan& plan, int64_t m, const float* gate,
                                      const float* up) const override {
    return make_input(plan, m, [&](int64_t row, float* out) {
      kernels_.swiglu_row(gate + row * plan.k, up + row * plan.k, plan.k, out);
      return out;
    });
  }

  std::span<const float> rows(const Input& input) const override {
    const auto& of_cpu = static_cast<const CpuInput&>(input);
    assert(!of_cpu.rows.empty() || of_cpu.m == 0);
    return of_cpu.rows;
  }

  void multiply(const Linear& linear, const Input& input, float* y) const override {
    const auto& rows = static_cast<const CpuInput&>(input);
    assert(linear.k() == rows.plan.k);
    if (const auto* mixed = dynamic_cast<const MixedLinear*>(&linear)) {
      multiply_mixed(*mixed, rows, y);
    } else {
      multiply_dense(static_cast<const DenseLinear&>(linear), rows, y);
    }
  }

 private:
  // ROW(i, buffer) gives the i-th row, which may be made in BUFFER [k].
  template <typename Row>
  std::unique_ptr<CpuInput> make_input(const InputPlan& plan, int64_t m, const Row& row) const {
    auto input = std::make_unique<CpuInput>();
    input->m = m;
    input->plan = plan;
    const bool quantizes = !plan.segments.empty();
    const bool keeps = plan.keep_rows || !quantizes;
    if (keeps) input->rows.resize(m * plan.k);
    if (quantizes) input->mixed = Tiles(kernels_, plan, m);
    const auto make_row = [&](int64_t i) {
      thread_local std::vector<float> buffer;
      buffer.resize(plan.k);
      const float* const x = row(i, buffer.data());
      if (keeps) std::copy_n(x, plan.k, input->rows.data() + i * plan.k);
      return x;
    };
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < m; first += kTileRows) {
      if (quantizes) {
        input->mixed.set_tile(plan, first, make_row);
      } else {
        for (int64_t i = first; i < std::min(m, first + kTileRows); ++i) make_row(i);
      }
    }
    return input;
  }

  const Tiles& dense_tiles(const CpuInput& input) const {
    std::call_once(input.dense_once, [&] {
      InputPlan plan;
      plan.k = input.plan.k;
      input.dense = Tiles(kernels_, plan, input.m);
      const auto padded_row = [&](int64_t i) {
        thread_local std::vector<float> buffer;
        buffer.assign(input.dense.k(), 0.0f);
        std::copy_n(input.rows.data() + i * plan.k, plan.k, buffer.data());
        return buffer.data();
      };
#pragma omp parallel for schedule(static)
      for (int64_t first = 0; first < input.m; first += kTileRows) {
        input.dense.set_tile(plan, first, padded_row);
      }
    });
    return input.dense;
  }

  void multiply_mixed(const MixedLinear& linear, const CpuInput& input, float* y) const {
    const PackedWeight& weight = linear.packed();
    const int64_t n = weight.n();
    const Tiles& tiles = input.mixed;
    assert(tiles.segments().size() == weight.segments().size());
    for_each_part(input.m, n, [&](const Part& part) {
      PanelProduct product(kernels_, tiles, part);
      int64_t first_block = 0;
      for (size_t s = 0; s < tiles.segments().size(); ++s) {
        const PackedWeight::Segment& segment = weight.segments()[s];
        const int64_t bytes = mx::packed_bytes(segment.format, kPanel * kBlock);
        const auto expand_blocks =
            tiles.segments()[s].integer ? kernels_.expand_integer : kernels_.expand_wide;
        const auto scales = [&](int64_t panel) {
          return weight.scales(panel) + first_block * kPanel;
        };
        const auto expand = [&](int64_t panel, int64_t block, int64_t blocks, std::byte* out) {
          expand_blocks(segment.format, weight.codes(panel, segment) + block * bytes, blocks, out);
        };
        product.add_segment(tiles.segments()[s], segment.format, scales, expand);
        first_block += segment.blocks;
      }
      product.for_each_row(n, [&](int64_t row, int64_t first, int64_t columns, const float* sums) {
        float* const out = y + row * n + first;
        for (int64_t j = 0; j < columns; ++j) {
          const float bias = linear.bias().empty() ? 0.0f : linear.bias()[first + j];
          out[j] = mx::round_to_bfloat16(sums[j] + bias);
        }
      });
    });
    fix_special(linear, input, y);
  }

  // Outputs that the kernels cannot give: of NaN scales, and of scales outside their range, which
  // come from the oracle.
  static void fix_special(const MixedLinear& linear, const CpuInput& input, float* y) {
    const int64_t n = linear.n();
#pragma omp parallel for schedule(dynamic)
    for (int64_t row = 0; row < input.m; ++row) {
      const cpu::RowFlags& flags = input.mixed.flags(row);
      if (flags.nan) {
        std::fill_n(y + row * n, n, std::numeric_limits<float>::quiet_NaN());
      } else if (flags.large || !linear.oracle_columns().empty()) {
        const QuantizedRows quantized = input.mixed.quantized_row(input.plan, row);
        const auto from_oracle = [&](int64_t column) {
          const double exact = oracle_output(linear.weight(), quantized, 0, column).value;
          y[row * n + column] = mx::to_float(mx::to_bfloat16(exact));
        };
        if (flags.large) {
          for (int64_t column = 0; column < n; ++column) from_oracle(column);
        } else {
          for (int64_t column : linear.oracle_columns()) from_oracle(column);
        }
      }
    }
  }

  void multiply_dense(const DenseLinear& linear, const CpuInput& input, float* y) const {
    const DenseWeight& weight = linear.weight();
    const Tiles& tiles = dense_tiles(input);
    const std::vector<uint8_t> scales(tiles.k(), mx::kScaleOne);  // [k / 32][32]
    for_each_part(input.m, weight.n, [&](const Part& part) {
      PanelProduct product(kernels_, tiles, part);
      product.add_segment(
          tiles.segments().front(), mx::Format::kE4M3, [&](int64_t) { return scales.data(); },
          [&](int64_t panel, int64_t block, int64_t blocks, std::byte* out) {
            const int64_t first = panel * kPanel;
            expand_rows(weight, first, std::min(kPanel, weight.n - first), block, blocks, out);
          });
      product.for_each_row(
          weight.n, [&](int64_t row, int64_t first, int64_t columns, const float* sums) {
            float* const out = y + row * weight.n + first;
            for (int64_t j = 0; j < columns; ++j) {
              out[j] = sums[j] + (weight.bias.empty() ? 0.0f : weight.bias[first + j]);
            }
          });
    });
  }

  // BLOCKS blocks of the rows FIRST... of a dense weight. BF16 is read where it lies; the other
  // types, and the end of a K that is no multiple of 32, by way of BF16 copies.
  void expand_rows(const DenseWeight& weight, int64_t first, int64_t columns, int64_t block,
                   int64_t blocks, std::byte* out) const {
    const int64_t begin = block * kBlock;
    if (weight.type == DenseType::kBF16 && begin + blocks * kBlock <= weight.k) {
      const std::byte* const at = weight.data.data() + (first * weight.k + begin) * 2;
      kernels_.expand_dense(at, weight.k * 2, columns, blocks, out);
      return;
    }
    const int64_t count = std::min(blocks * kBlock, weight.k - begin);
    std::vector<float> values(count);
    std::vector<mx::BFloat16> copy(columns * blocks * kBlock);
    for (int64_t j = 0; j < columns; ++j) {
      decode_dense(weight, first + j, begin, count, values.data());
      std::transform(values.begin(), values.end(), copy.begin() + j * blocks * kBlock,
                     [](float value) { return mx::to_bfloat16(value); });
    }
    kernels_.expand_dense(reinterpret_cast<const std::byte*>(copy.data()), blocks * kBlock * 2,
                          columns, blocks, out);
  }

  const Kernels& kernels_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const Kernels& kernels) {
  return std::make_unique<CpuBackend>(kernels);
}

const Backend& cpu_backend() {
  static const CpuBackend backend(cpu::chosen_kernels());
  return backend;
}

QuantizedRows cpu_quantized_row(const Input& input, int64_t row) {
  const auto& of_cpu = static_cast<const CpuInput&>(input);
  return of_cpu.mixed.quantized_row(of_cpu.plan, row);
}

}  // namespace micromix::kernels
