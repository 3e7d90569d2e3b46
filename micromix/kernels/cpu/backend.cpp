#include "micromix/kernels/cpu/backend.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <limits>
#include <typeinfo>
#include <utility>

#include <omp.h>

#include "micromix/kernels/cpu/attention.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/cpu/linears.h"
#include "micromix/kernels/cpu/panel_product.h"
#include "micromix/kernels/cpu/tiles.h"
#include "micromix/kernels/host.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::kernels {
namespace {

using cpu::CpuLinear;
using cpu::Kernels;
using cpu::kPanel;
using cpu::kTileRows;
using cpu::MixedLinear;
using cpu::PanelProduct;
using cpu::Part;
using cpu::Tiles;

struct CpuInput final : Input {
  int64_t m = 0;
  const InputPlan* plan = nullptr;
  std::vector<float> rows;  // [m, k] before rounding, where the plan keeps them
  Tiles mixed;              // where the plan quantizes
  // What dense readers multiply, made when the first asks.
  mutable Tiles dense;
  mutable bool has_dense = false;
};

int64_t panels_of(const Product& product) {
  return (product.linear->n() + kPanel - 1) / kPanel;
}

// How the rows and columns of some products are shared out.
class Partition {
 public:
  struct Share {
    const Product* product;
    Part part;
  };

  Partition(std::span<const Product> products, int64_t m) : products_(products), m_(m) {
    for (const Product& product : products) panels_ += panels_of(product);
    if (!few_rows()) share_out();
  }

  // Then reading weights is what takes longest, and parts are single panels, to be taken in runs: a
  // thread streams those that lie one after another.
  bool few_rows() const { return m_ <= 8 * kTileRows; }
  int64_t parts() const { return few_rows() ? panels_ : std::ssize(shares_); }
  Share at(int64_t index) const {
    if (!few_rows()) return shares_[index];
    const Product* product = products_.data();
    for (; index >= panels_of(*product); ++product) index -= panels_of(*product);
    return {product, {index, 1, 0, m_}};
  }

  // Of many rows: the parts that thread T does first are [first_of(t), first_of(t + 1)). They are
  // of the rows that it has quantized, where there are as many passes as threads.
  int threads() const { return static_cast<int>(first_of_.size()) - 1; }
  int64_t first_of(int t) const { return first_of_[t]; }

 private:
  void share_out() {
    // As many rows in every pass as whole tiles allow: each pass expands all weights.
    const int64_t passes = (m_ + cpu::kMostRows - 1) / cpu::kMostRows;
    const int64_t tiles = (m_ + kTileRows - 1) / kTileRows;
    const int64_t rows_together = (tiles + passes - 1) / passes * kTileRows;
    const int64_t all = panels_ * ((m_ + rows_together - 1) / rows_together);
    const int threads = omp_get_max_threads();
    int64_t done = 0;
    for (int64_t row = 0; row < m_; row += rows_together) {
      for (const Product& product : products_) {
        const int64_t panels = panels_of(product);
        for (int64_t panel = 0; panel < panels;) {
          while (done >= all * std::ssize(first_of_) / threads) first_of_.push_back(parts());
          // Ever smaller parts, so that threads end together.
          const int64_t left = all * std::ssize(first_of_) / threads - done;
          const int64_t together =
              std::min({panels - panel, cpu::kMostPanels, std::max<int64_t>(1, left / 2)});
          shares_.push_back({&product, {panel, together, row, std::min(rows_together, m_ - row)}});
          panel += together;
          done += together;
        }
      }
    }
    first_of_.push_back(parts());
  }

  std::span<const Product> products_;
  int64_t m_;
  int64_t panels_ = 0;
  // Of many rows.
  std::vector<Share> shares_;
  std::vector<int64_t> first_of_ = {0};
};

// Calls WORK(part) for all of a PARTITION of many rows: a thread takes its own parts, then others'.
template <typename Work>
void for_each_part(const Partition& partition, const Work& work) {
  std::vector<std::atomic<int64_t>> next(partition.threads());
  for (int t = 0; t < partition.threads(); ++t) next[t] = partition.first_of(t);
#pragma omp parallel
  for (int i = 0; i < partition.threads(); ++i) {
    const int t = (omp_get_thread_num() + i) % partition.threads();
    for (int64_t part; (part = next[t]++) < partition.first_of(t + 1);) work(part);
  }
}

class CpuBackend final : public HostBackend {
 public:
  explicit CpuBackend(const Kernels& kernels) : kernels_(kernels) {}

  using HostBackend::multiply;
  using HostBackend::prepare;
  using HostBackend::set;

  std::unique_ptr<Linear> prepare(const DenseWeight& weight) const override {
    return std::make_unique<cpu::DenseLinear>(weight);
  }
  std::unique_ptr<Linear> prepare(const MixedWeight& weight, const InputPlan&) const override {
    return std::make_unique<MixedLinear>(weight);
  }

  std::unique_ptr<Input> make_input() const override { return std::make_unique<CpuInput>(); }

  void set(Input& input, const Plan& plan, const Buffer& x) const override {
    set_rows(input, plan.input(), x.rows(),
             [&](int64_t row, float*) { return values(x) + row * x.width(); });
  }

  void set_rmsnorm(Input& input, const Plan& plan, const Rows& hidden, const Buffer* addend,
                   const Norm& norm) const override {
    const int64_t k = plan.input().k;
    set_rows(input, plan.input(), hidden.count, [&](int64_t row, float* out) {
      float* const x = values(hidden) + row * k;
      if (addend != nullptr) {
        const float* const term = values(*addend) + row * k;
        for (int64_t j = 0; j < k; ++j) x[j] += term[j];
      }
      kernels_.rmsnorm_row(x, norm.gain().data(), k, static_cast<float>(norm.eps()), out);
      return out;
    });
  }

  void set_swiglu(Input& input, const Plan& plan, const Buffer& gate,
                  const Buffer& up) const override {
    const int64_t k = plan.input().k;
    set_rows(input, plan.input(), gate.rows(), [&](int64_t row, float* out) {
      kernels_.swiglu_row(values(gate) + row * k, values(up) + row * k, k, out);
      return out;
    });
  }

  std::span<const float> rows(const Input& input) const override {
    const auto& of_cpu = static_cast<const CpuInput&>(input);
    assert(of_cpu.plan->keep_rows || of_cpu.plan->segments.empty());
    return of_cpu.rows;
  }

  void multiply(std::span<const Product> products, const Input& input) const override {
    const auto& rows = static_cast<const CpuInput&>(input);
    for (const Product& product : products) product.y->resize(rows.m, product.linear->n());
    if (rows.m == 0) return;
    for (const Product& product : products) {
      assert(product.linear->k() == rows.plan->k);
      assert(!is_mixed(*product.linear) || !rows.plan->segments.empty());
      if (!is_mixed(*product.linear)) make_dense(rows);
    }
    const Partition partition(products, rows.m);
    const auto multiply_part = [&](int64_t index) {
      const auto [product, part] = partition.at(index);
      const auto& linear = static_cast<const CpuLinear&>(*product->linear);
      const bool mixed = is_mixed(linear);
      PanelProduct result(kernels_, mixed ? rows.mixed : rows.dense, part,
                          {linear.n(), linear.bias(), mixed, values(*product->y)});
      linear.multiply(result);
    };
    if (partition.few_rows()) {
#pragma omp parallel for schedule(guided)
      for (int64_t index = 0; index < partition.parts(); ++index) multiply_part(index);
    } else {
      for_each_part(partition, multiply_part);
    }
    for (const Product& product : products) {
      if (is_mixed(*product.linear)) {
        fix_special(static_cast<const MixedLinear&>(*product.linear), rows, values(*product.y));
      }
    }
  }

  std::unique_ptr<KeyValues> make_key_values(const AttentionShape& shape,
                                             int64_t capacity) const override {
    return std::make_unique<cpu::PackedKeyValues>(shape, capacity);
  }

  void attend(const KeyValues& cache, const Buffer& q, Buffer& out) const override {
    out.resize(q.rows(), q.width());
    cpu::attend(kernels_, static_cast<const cpu::PackedKeyValues&>(cache), q.rows(), values(q),
                values(out));
  }

 private:
  static bool is_mixed(const Linear& linear) {
    return typeid(linear) == typeid(MixedLinear);  // asked for every part
  }

  // ROW(i, buffer) gives the i-th row, which may be made in BUFFER [k].
  template <typename Row>
  void set_rows(Input& input, const InputPlan& plan, int64_t m, const Row& row) const {
    auto& of_cpu = static_cast<CpuInput&>(input);
    of_cpu.m = m;
    of_cpu.plan = &plan;
    of_cpu.has_dense = false;
    const bool quantizes = !plan.segments.empty();
    const bool keeps = plan.keep_rows || !quantizes;
    of_cpu.rows.resize(keeps ? m * plan.k : 0);
    if (quantizes) of_cpu.mixed.reset(kernels_, plan, m);
    const auto make_row = [&](int64_t i) {
      thread_local std::vector<float> buffer;
      buffer.resize(kTileRows * plan.k);
      const float* const x = row(i, buffer.data() + i % kTileRows * plan.k);
      if (keeps) std::copy_n(x, plan.k, of_cpu.rows.data() + i * plan.k);
      return x;
    };
#pragma omp parallel for schedule(static) if (m > kTileRows)
    for (int64_t first = 0; first < m; first += kTileRows) {
      if (quantizes) {
        of_cpu.mixed.set_tile(plan, first, make_row);
      } else {
        for (int64_t i = first; i < std::min(m, first + kTileRows); ++i) make_row(i);
      }
    }
  }

  void make_dense(const CpuInput& input) const {
    if (std::exchange(input.has_dense, true)) return;
    assert(static_cast<int64_t>(input.rows.size()) == input.m * input.plan->k);
    InputPlan plan;
    plan.k = input.plan->k;
    input.dense.reset(kernels_, plan, input.m);
    const auto padded_row = [&](int64_t i) -> const float* {
      if (plan.k == input.dense.k()) return input.rows.data() + i * plan.k;
      thread_local std::vector<float> buffer;
      buffer.resize(kTileRows * input.dense.k());
      float* const padded = buffer.data() + i % kTileRows * input.dense.k();
      std::copy_n(input.rows.data() + i * plan.k, plan.k, padded);
      std::fill(padded + plan.k, padded + input.dense.k(), 0.0f);
      return padded;
    };
#pragma omp parallel for schedule(static) if (input.m > kTileRows)
    for (int64_t first = 0; first < input.m; first += kTileRows) {
      input.dense.set_tile(plan, first, padded_row);
    }
  }

  // Outputs that the kernels cannot give: of NaN scales, and of scales outside their range, which
  // come from the oracle.
  static void fix_special(const MixedLinear& linear, const CpuInput& input, float* y) {
    bool special = !linear.oracle_columns().empty();
    for (int64_t row = 0; row < input.m; ++row) {
      special = special || input.mixed.flags(row).nan || input.mixed.flags(row).large;
    }
    if (!special) return;
    const int64_t n = linear.n();
#pragma omp parallel for schedule(dynamic)
    for (int64_t row = 0; row < input.m; ++row) {
      const cpu::RowFlags& flags = input.mixed.flags(row);
      if (flags.nan) {
        std::fill_n(y + row * n, n, std::numeric_limits<float>::quiet_NaN());
      } else if (flags.large || !linear.oracle_columns().empty()) {
        const QuantizedRows quantized = input.mixed.quantized_row(*input.plan, row);
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
  return of_cpu.mixed.quantized_row(*of_cpu.plan, row);
}

}  // namespace micromix::kernels
