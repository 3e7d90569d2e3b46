#include "micromix/kernels/reference/oracle.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>

#include "micromix/mx/bfloat16.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"

namespace micromix::kernels {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;

// One operand's block: 32 element values and the exponent of their common scale.
struct BlockValues {
  float element[kBlock] = {};
  int exponent = 0;
  bool nan = false;
};

BlockValues weight_block(const WeightSegment& segment, int64_t row, int64_t block) {
  const int64_t bytes = mx::packed_bytes(segment.format, kBlock);
  const int64_t blocks = segment.channels / kBlock;
  uint8_t codes[kBlock];
  mx::unpack(segment.format, segment.codes.subspan((row * blocks + block) * bytes, bytes), codes);
  const uint8_t scale = segment.scales[row * blocks + block];
  BlockValues result;
  result.exponent = scale - mx::kScaleBias;
  result.nan = scale == mx::kScaleNan;
  for (int64_t i = 0; i < kBlock; ++i) result.element[i] = mx::decode(segment.format, codes[i]);
  return result;
}

BlockValues row_block(const QuantizedRows& rows, const InputPlan::Segment& segment, int64_t row,
                      int64_t channel) {
  const int64_t at = row * rows.plan.k + channel;
  BlockValues result;
  if (!segment.format) {
    for (int64_t i = 0; i < kBlock; ++i) result.element[i] = rows.values[at + i];
    return result;
  }
  const uint8_t scale = rows.scales[at / kBlock];
  result.exponent = scale - mx::kScaleBias;
  result.nan = scale == mx::kScaleNan;
  for (int64_t i = 0; i < kBlock; ++i) {
    result.element[i] = mx::decode(*segment.format, rows.codes[at + i]);
  }
  return result;
}

}  // namespace

QuantizedRows quantize_rows(const InputPlan& plan, int64_t m, const float* x) {
  assert(plan.k % kBlock == 0);
  QuantizedRows rows;
  rows.m = m;
  rows.plan = plan;
  rows.codes.resize(m * plan.k);
  rows.scales.resize(m * plan.k / kBlock);
  rows.values.resize(m * plan.k);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    float* values = rows.values.data() + row * plan.k;
    for (int64_t j = 0; j < plan.k; ++j) {
      const int64_t source = plan.permutation.empty() ? j : plan.permutation[j];
      values[j] = mx::round_to_bfloat16(x[row * plan.k + source]);
    }
    int64_t channel = 0;
    for (const InputPlan::Segment& segment : plan.segments) {
      const int64_t end = channel + segment.channels;
      if (!segment.format) channel = end;
      for (; channel < end; channel += kBlock) {
        const int64_t at = row * plan.k + channel;
        rows.scales[at / kBlock] =
            mx::quantize_block(*segment.format, plan.scale_rule, {values + channel, kBlock},
                               {rows.codes.data() + at, kBlock});
      }
    }
  }
  return rows;
}

void dequantize_row(const QuantizedRows& rows, int64_t row, float* out) {
  int64_t channel = 0;
  for (const InputPlan::Segment& segment : rows.plan.segments) {
    const int64_t at = row * rows.plan.k + channel;
    const int64_t end = channel + segment.channels;
    if (!segment.format) {
      std::copy_n(rows.values.data() + at, segment.channels, out + channel);
      channel = end;
      continue;
    }
    const std::array<float, 256>& table = mx::decode_table(*segment.format);
    for (const uint8_t* code = rows.codes.data() + at; channel < end;) {
      const float scale = mx::decode_scale(rows.scales[(row * rows.plan.k + channel) / kBlock]);
      for (int64_t i = 0; i < kBlock; ++i) out[channel++] = table[*code++] * scale;
    }
  }
}

OracleValue oracle_output(const MixedWeight& weight, const QuantizedRows& rows, int64_t row,
                          int64_t column) {
  assert(rows.plan.segments.size() == weight.segments.size());
  const double bias = weight.bias.empty() ? 0.0 : static_cast<double>(weight.bias[column]);
  OracleValue result{0.0, std::fabs(bias)};
  int64_t channel = 0;
  for (size_t s = 0; s < weight.segments.size(); ++s) {
    for (int64_t block = 0; block < weight.segments[s].channels / kBlock; ++block) {
      const BlockValues w = weight_block(weight.segments[s], column, block);
      const BlockValues x = row_block(rows, rows.plan.segments[s], row, channel);
      channel += kBlock;
      if (w.nan || x.nan) return {std::numeric_limits<double>::quiet_NaN(), 0.0};
      double sum = 0.0;
      double magnitude = 0.0;
      for (int64_t i = 0; i < kBlock; ++i) {
        const double product = static_cast<double>(x.element[i]) * w.element[i];
        sum += product;
        magnitude += std::fabs(product);
      }
      const double scale = mx::power_of_two(w.exponent + x.exponent);
      result.value += sum * scale;
      result.magnitude += magnitude * scale;
    }
  }
  result.value += bias;
  return result;
}

double error_bound(const OracleValue& oracle, int64_t additions) {
  return 0x1p-8 * std::fabs(oracle.value) +
         (1 + 0x1p-8) * static_cast<double>(additions) * 0x1p-23 * oracle.magnitude + 0x1p-133;
}

}  // namespace micromix::kernels
