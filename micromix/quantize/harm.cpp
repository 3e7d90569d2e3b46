#include "micromix/quantize/harm.h"

#include <algorithm>

#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/block.h"
#include "micromix/quantize/quantize_linear.h"

namespace micromix {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;

// Second moments of one block over the rows: X^T X, X^T D and D^T D with D = X - Q(X).
struct BlockMoments {
  float xx[kBlock][kBlock] = {};
  float xd[kBlock][kBlock] = {};
  float dd[kBlock][kBlock] = {};

  void add(const float* x, const float* quantized) {
    float d[kBlock];
    for (int64_t i = 0; i < kBlock; ++i) d[i] = x[i] - quantized[i];
    for (int64_t i = 0; i < kBlock; ++i) {
      for (int64_t j = 0; j < kBlock; ++j) {
        xx[i][j] += x[i] * x[j];
        xd[i][j] += x[i] * d[j];
        dd[i][j] += d[i] * d[j];
      }
    }
  }

  // sum over rows of (x w - q(x) q(w))^2. With e = w - q(w) a row's term is (x e + d q(w))^2, which
  // does not cancel as the difference of the two products would.
  float error(const float* e, const float* quantized) const {
    float sum = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      float xe = 0, cross = 0, dq = 0;
      for (int64_t j = 0; j < kBlock; ++j) {
        xe += xx[i][j] * e[j];
        cross += xd[i][j] * quantized[j];
        dq += dd[i][j] * quantized[j];
      }
      sum += e[i] * (xe + 2 * cross) + quantized[i] * dq;
    }
    return sum;
  }
};

// The kept rows in ORDER and their quantized values in one activation format.
struct Rows {
  int64_t count;
  std::vector<float> exact;
  std::vector<float> quantized;
};

Rows quantized_rows(const InputStatistics& input, std::span<const int32_t> order,
                    mx::Format weight_format, const ActivationFormat& format, mx::ScaleRule rule) {
  const int64_t k = input.channels();
  std::vector<float> x;
  for (mx::BFloat16 value : input.rows) x.push_back(mx::to_float(value));
  const kernels::InputPlan plan{
      k, {order.begin(), order.end()}, {{weight_format, format, k}}, rule};
  Rows rows{input.row_count, std::vector<float>(x.size()), std::vector<float>(x.size())};
  const kernels::QuantizedRows quantized = kernels::quantize_rows(plan, rows.count, x.data());
  for (int64_t row = 0; row < rows.count; ++row) {
    for (int64_t j = 0; j < k; ++j) rows.exact[row * k + j] = x[row * k + order[j]];
    kernels::dequantize_row(quantized, row, rows.quantized.data() + row * k);
  }
  return rows;
}

// Error of one weight row's block VALUES in FORMAT.
float block_error(const BlockMoments& moments, mx::Format format, mx::ScaleRule rule,
                  std::span<const float> values) {
  uint8_t codes[kBlock];
  const uint8_t scale = mx::quantize_block(format, rule, values, codes);
  const float factor = mx::decode_scale(scale);
  const auto& table = mx::decode_table(format);
  float quantized[kBlock];
  float error[kBlock];
  for (int64_t i = 0; i < kBlock; ++i) {
    quantized[i] = table[codes[i]] * factor;
    error[i] = values[i] - quantized[i];
  }
  return moments.error(error, quantized);
}

}  // namespace

std::vector<FormatHarms> group_harms(const InputStatistics& input,
                                     std::span<const LinearWeights* const> readers,
                                     std::span<const int32_t> order,
                                     const QuantizeOptions& options) {
  const int64_t k = input.channels();
  const int64_t blocks = k / kBlock;
  const int64_t group = options.allocation.channel_group;
  std::vector<FormatHarms> harms((k + group - 1) / group);
  for (size_t f = 0; f < mx::kOperandFormats.size(); ++f) {
    const mx::Format format = mx::kOperandFormats[f];
    const Rows rows = quantized_rows(input, order, format, options.activation_formats.at(format),
                                     options.scale_rule);
    std::vector<BlockMoments> moments(blocks);
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t row = 0; row < rows.count; ++row) {
        const int64_t at = row * k + block * kBlock;
        moments[block].add(rows.exact.data() + at, rows.quantized.data() + at);
      }
    }
    for (const LinearWeights* reader : readers) {
      // [n, blocks], summed in order afterwards: the same for any number of threads.
      std::vector<float> errors(reader->n * blocks);
#pragma omp parallel for schedule(static)
      for (int64_t row = 0; row < reader->n; ++row) {
        const std::vector<float> source = weight_row(*reader, row);
        float values[kBlock];
        for (int64_t block = 0; block < blocks; ++block) {
          for (int64_t i = 0; i < kBlock; ++i) values[i] = source[order[block * kBlock + i]];
          errors[row * blocks + block] =
              block_error(moments[block], format, options.scale_rule, values);
        }
      }
      for (int64_t row = 0; row < reader->n; ++row) {
        for (int64_t block = 0; block < blocks; ++block) {
          harms[block * kBlock / group][f] += errors[row * blocks + block];
        }
      }
    }
  }
  return harms;
}

}  // namespace micromix
