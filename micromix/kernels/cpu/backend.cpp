#include "micromix/kernels/cpu/backend.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <typeinfo>
#include <utility>

#include "micromix/kernels/cpu/attention.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/cpu/linears.h"
#include "micromix/kernels/cpu/panel_product.h"
#include "micromix/kernels/cpu/partition.h"
#include "micromix/kernels/cpu/tiles.h"
#include "micromix/kernels/host.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::kernels {
namespace {

using cpu::CpuLinear;
using cpu::Kernels;
using cpu::kTileRows;
using cpu::MixedLinear;
using cpu::PanelProduct;
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
    const cpu::Partition partition(products, rows.m);
    partition.for_each_share([&](const cpu::Partition::Share& share) {
      const auto& [product, part] = share;
      const auto& linear = static_cast<const CpuLinear&>(*product->linear);
      const bool mixed = is_mixed(linear);
      PanelProduct result(kernels_, mixed ? rows.mixed : rows.dense, part,
                          {linear.n(), linear.bias(), mixed, values(*product->y)});
      linear.multiply(result);
    });
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
    return typeid(linear) == typeid(MixedLinear);  // a dynamic_cast is slow for every part
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
    if (quantizes) of_cpu.mixed.reset(kernels_, plan, m, cpu::shares_rows(m));
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
    input.dense.reset(kernels_, plan, input.m, cpu::shares_rows(input.m));
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
