// The reference backend: quantize as the oracle does, dequantize, multiply in FP32.
//
// Rounding: operands dequantize exactly and every FP32 addition rounds once, so with
// c = gemm_additions(k) + 1 (the bias) a result obeys error_bound(), as long as nothing overflows.
// (A product that underflows is off by 2^-150 at most, and 2^16 of those by half the bound's
// 2^-133.) Scale exponents of 45 at most keep every product below 2^108 and a sum of 2^16 of them
// below 2^124; rows with a larger one, or with NaN, are found when they are made ready, and their
// outputs come from the oracle.
#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>

#include "micromix/kernels/host.h"
#include "micromix/kernels/reference/attention.h"
#include "micromix/kernels/reference/dense.h"
#include "micromix/kernels/reference/gemm.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"

namespace micromix::kernels {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;

constexpr int kSafeExponent = 45;
constexpr float kSafeValue = 0x1p54f;  // an E4M3 element stays below 2^9

bool is_safe(std::span<const uint8_t> scales) {
  return std::all_of(scales.begin(), scales.end(),
                     [](uint8_t scale) { return scale <= kSafeExponent + mx::kScaleBias; });
}

// BF16 values, of weight-only activations.
bool is_safe(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return std::fabs(value) < kSafeValue; });
}

class DenseLinear final : public Linear, public RowSource {
 public:
  explicit DenseLinear(const DenseWeight& weight) : weight_(weight) {}

  int64_t n() const override { return weight_.n; }
  int64_t k() const override { return weight_.k; }
  std::span<const float> bias() const { return weight_.bias; }

  void decode(int64_t row, int64_t column, int64_t count, float* out) const override {
    decode_dense(weight_, row, column, count, out);
  }

 private:
  DenseWeight weight_;
};

class MixedLinear final : public Linear, public RowSource {
 public:
  explicit MixedLinear(const MixedWeight& weight) : weight_(weight) {
    for (int64_t row = 0; row < weight_.n; ++row) {
      const bool safe = std::all_of(weight_.segments.begin(), weight_.segments.end(),
                                    [&](const WeightSegment& segment) {
                                      const int64_t blocks = segment.channels / kBlock;
                                      return is_safe(segment.scales.subspan(row * blocks, blocks));
                                    });
      if (!safe) unsafe_rows_.push_back(row);
    }
  }

  int64_t n() const override { return weight_.n; }
  int64_t k() const override { return weight_.k; }
  const MixedWeight& weight() const { return weight_; }
  const std::vector<int64_t>& unsafe_rows() const { return unsafe_rows_; }

  // COLUMN and COUNT are multiples of 32: the product's depth is.
  void decode(int64_t row, int64_t column, int64_t count, float* out) const override {
    int64_t begin = 0;
    for (const WeightSegment& segment : weight_.segments) {
      if (count == 0) break;
      const int64_t end = begin + segment.channels;
      const int64_t first_block = (column - begin) / kBlock;
      const int64_t blocks = (std::min(end, column + count) - column) / kBlock;
      for (int64_t block = 0; block < blocks; ++block) {
        decode_block(segment, row, first_block + block, out);
        out += kBlock;
      }
      if (blocks > 0) {
        column += blocks * kBlock;
        count -= blocks * kBlock;
      }
      begin = end;
    }
  }

 private:
  static void decode_block(const WeightSegment& segment, int64_t row, int64_t block, float* out) {
    const std::array<float, 256>& table = mx::decode_table(segment.format);
    const int64_t blocks = segment.channels / kBlock;
    const int64_t bytes = mx::packed_bytes(segment.format, kBlock);
    uint8_t codes[kBlock];
    mx::unpack(segment.format, segment.codes.subspan((row * blocks + block) * bytes, bytes), codes);
    const float scale = mx::decode_scale(segment.scales[row * blocks + block]);
    for (int64_t i = 0; i < kBlock; ++i) out[i] = table[codes[i]] * scale;
  }

  MixedWeight weight_;
  std::vector<int64_t> unsafe_rows_;
};

struct ReferenceInput final : Input {
  int64_t m = 0;
  int64_t k = 0;
  std::vector<float> dense;  // [m, k], as the producer made it
  QuantizedRows quantized;   // where the plan quantizes
  std::vector<float> mixed;  // [m, k], permuted, dequantized
  std::vector<int64_t> unsafe_rows;
};

bool is_safe_row(const QuantizedRows& rows, int64_t row) {
  const int64_t k = rows.plan.k;
  int64_t channel = 0;
  for (const InputPlan::Segment& segment : rows.plan.segments) {
    const int64_t at = row * k + channel;
    const std::span scales(rows.scales.data() + at / kBlock, segment.channels / kBlock);
    const std::span values(rows.values.data() + at, segment.channels);
    if (segment.format ? !is_safe(scales) : !is_safe(values)) return false;
    channel += segment.channels;
  }
  return true;
}

// Quantizes what INPUT's rows [m, k] were set to.
void finish(ReferenceInput& input, const InputPlan& plan, int64_t m) {
  input.m = m;
  input.k = plan.k;
  input.unsafe_rows.clear();
  input.mixed.clear();
  if (plan.segments.empty()) return;
  input.quantized = quantize_rows(plan, m, input.dense.data());
  input.mixed.resize(m * plan.k);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    dequantize_row(input.quantized, row, input.mixed.data() + row * plan.k);
  }
  for (int64_t row = 0; row < m; ++row) {
    if (!is_safe_row(input.quantized, row)) input.unsafe_rows.push_back(row);
  }
}

void add_bias(std::span<const float> bias, int64_t m, int64_t n, float* y) {
  if (bias.empty()) return;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t j = 0; j < n; ++j) y[row * n + j] += bias[j];
  }
}

void multiply_mixed(const MixedLinear& linear, const ReferenceInput& input, float* y) {
  assert(!input.mixed.empty() || input.m == 0);
  const int64_t n = linear.n();
  parallel_gemm(input.m, n, input.k, input.mixed.data(), input.k, linear, y, n);
  add_bias(linear.weight().bias, input.m, n, y);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < input.m * n; ++i) y[i] = mx::round_to_bfloat16(y[i]);

  const auto from_oracle = [&](int64_t row, int64_t column) {
    const OracleValue exact = oracle_output(linear.weight(), input.quantized, row, column);
    y[row * n + column] = mx::to_float(mx::to_bfloat16(exact.value));
  };
  for (int64_t row : input.unsafe_rows) {
#pragma omp parallel for schedule(static)
    for (int64_t column = 0; column < n; ++column) from_oracle(row, column);
  }
  for (int64_t column : linear.unsafe_rows()) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < input.m; ++row) from_oracle(row, column);
  }
}

class ReferenceBackend final : public HostBackend {
 public:
  using HostBackend::multiply;
  using HostBackend::prepare;
  using HostBackend::set;

  std::unique_ptr<Linear> prepare(const DenseWeight& weight) const override {
    return std::make_unique<DenseLinear>(weight);
  }
  std::unique_ptr<Linear> prepare(const MixedWeight& weight, const InputPlan&) const override {
    return std::make_unique<MixedLinear>(weight);
  }

  std::unique_ptr<Input> make_input() const override { return std::make_unique<ReferenceInput>(); }

  void set(Input& input, const Plan& plan, const Buffer& x) const override {
    auto& of_reference = static_cast<ReferenceInput&>(input);
    of_reference.dense.assign(values(x), values(x) + x.rows() * x.width());
    finish(of_reference, plan.input(), x.rows());
  }

  void set_rmsnorm(Input& input, const Plan& plan, const Rows& hidden, const Buffer* addend,
                   const Norm& norm) const override {
    if (addend != nullptr) add(hidden, *addend);
    auto& of_reference = static_cast<ReferenceInput&>(input);
    const int64_t k = plan.input().k;
    const auto eps = static_cast<float>(norm.eps());
    std::vector<float>& normed = of_reference.dense;
    normed.resize(hidden.count * k);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < hidden.count; ++row) {
      const float* in = values(hidden) + row * k;
      double squares = 0;
      for (int64_t j = 0; j < k; ++j) squares += static_cast<double>(in[j]) * in[j];
      const float factor =
          static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(k) + eps));
      for (int64_t j = 0; j < k; ++j) normed[row * k + j] = in[j] * factor * norm.gain()[j];
    }
    finish(of_reference, plan.input(), hidden.count);
  }

  void set_swiglu(Input& input, const Plan& plan, const Buffer& gates,
                  const Buffer& ups) const override {
    auto& of_reference = static_cast<ReferenceInput&>(input);
    const float* const gate = values(gates);
    const float* const up = values(ups);
    std::vector<float>& gated = of_reference.dense;
    gated.resize(gates.rows() * gates.width());
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < std::ssize(gated); ++i) {
      gated[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    }
    finish(of_reference, plan.input(), gates.rows());
  }

  std::span<const float> rows(const Input& input) const override {
    return static_cast<const ReferenceInput&>(input).dense;
  }

  void multiply(std::span<const Product> products, const Input& input) const override {
    const auto& rows = static_cast<const ReferenceInput&>(input);
    for (const auto& [linear, out] : products) {
      assert(linear->k() == rows.k);
      out->resize(rows.m, linear->n());
      float* const y = values(*out);
      if (const auto* mixed = dynamic_cast<const MixedLinear*>(linear)) {
        multiply_mixed(*mixed, rows, y);
        continue;
      }
      const auto& dense = static_cast<const DenseLinear&>(*linear);
      parallel_gemm(rows.m, dense.n(), rows.k, rows.dense.data(), rows.k, dense, y, dense.n());
      add_bias(dense.bias(), rows.m, dense.n(), y);
    }
  }

  std::unique_ptr<KeyValues> make_key_values(const AttentionShape& shape,
                                             int64_t capacity) const override {
    return std::make_unique<FloatKeyValues>(shape, capacity);
  }

  void attend(const KeyValues& cache, const Buffer& q, Buffer& out) const override {
    out.resize(q.rows(), q.width());
    attend_float(static_cast<const FloatKeyValues&>(cache), q.rows(), values(q), values(out));
  }
};

}  // namespace

const Backend& reference_backend() {
  static const ReferenceBackend backend;
  return backend;
}

}  // namespace micromix::kernels
