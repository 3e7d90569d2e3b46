// What the device's quantizers wrote, held against the oracle byte by byte.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/quantize.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
#include "micromix/mx/packing.h"

namespace micromix::testing {

using Bits = std::vector<uint16_t>;  // of BF16 numbers

inline std::vector<float> to_floats(const Bits& bits) {
  std::vector<float> values;
  values.reserve(bits.size());
  for (const uint16_t each : bits) values.push_back(mx::to_float({each}));
  return values;
}

inline bool is_nan(uint16_t bits) {
  return (bits & 0x7FFF) > 0x7F80;
}

// An array that starts as poison and has a margin behind it, which must stay so.
template <typename T>
class PoisonedArray {
 public:
  explicit PoisonedArray(int64_t size) : size_(size), bytes_(size * sizeof(T) + kMargin) {
    kernels::cuda::check(cudaMemset(bytes_.data(), kPoison, size * sizeof(T) + kMargin), "poison");
  }
  T* data() const { return reinterpret_cast<T*>(bytes_.data()); }
  int64_t size() const { return size_; }
  std::vector<T> to_host() const {
    const std::vector<uint8_t> bytes = bytes_.to_host();
    const auto end = bytes.end() - kMargin;
    EXPECT_EQ(std::vector<uint8_t>(end, bytes.end()), std::vector<uint8_t>(kMargin, kPoison))
        << "written beyond the end";
    std::vector<T> values(size_);
    std::memcpy(values.data(), bytes.data(), size_ * sizeof(T));
    return values;
  }

 private:
  static constexpr int kPoison = 0xAB;
  static constexpr int64_t kMargin = 256;
  int64_t size_;
  kernels::cuda::DeviceArray<uint8_t> bytes_;
};

inline int64_t padded_blocks(int64_t channels) {
  return (channels + kernels::cuda::kChunk - 1) / kernels::cuda::kChunk *
         kernels::cuda::kBlocksPerChunk;
}

// One row of a segment's block as it should be in exact rows.
struct ExactBlock {
  int shift = 0;
  std::optional<std::vector<uint16_t>> values;  // none: all NaN
};
inline ExactBlock exact_block(const kernels::QuantizedRows& rows,
                              const kernels::InputPlan::Segment& segment, int64_t row,
                              int64_t channel) {
  const int64_t at = row * rows.plan.k + channel;
  ExactBlock block;
  block.values.emplace();
  if (!segment.format) {
    for (int i = 0; i < mx::kBlockSize; ++i) {
      const float value = rows.values[at + i];
      if (!std::isfinite(value)) return {};
      block.values->push_back(mx::to_bfloat16(value).bits);
    }
    return block;
  }
  const uint8_t scale = rows.scales[at / mx::kBlockSize];
  if (scale == mx::kScaleNan) return {};
  const int exponent = scale - mx::kScaleBias;
  if (exponent < kernels::cuda::kLowestExactExponent) block.shift = -1;
  if (exponent > kernels::cuda::kHighestExactExponent) block.shift = 1;
  for (int i = 0; i < mx::kBlockSize; ++i) {
    const float element = mx::decode(*segment.format, rows.codes[at + i]);
    const float value = std::ldexp(element, exponent - 128 * block.shift);
    EXPECT_EQ(mx::round_to_bfloat16(value), value) << "not exact";
    block.values->push_back(mx::to_bfloat16(value).bits);
  }
  return block;
}

// The first difference between blocks, if any.
inline std::string difference(const ExactBlock& expected, const uint16_t* found) {
  for (int i = 0; i < mx::kBlockSize; ++i) {
    if (expected.values ? found[i] == (*expected.values)[i] : is_nan(found[i])) continue;
    return "element " + std::to_string(i) + " is " + std::to_string(mx::to_float({found[i]})) +
           ", expected " +
           (expected.values ? std::to_string(mx::to_float({(*expected.values)[i]})) : "NaN");
  }
  return "";
}

// All outputs of one call.
class QuantizedOnDevice {
 public:
  QuantizedOnDevice(const kernels::InputPlan& plan, int64_t m)
      : plan_(plan), m_(m), blocks_(count_blocks(plan)) {}

  kernels::cuda::QuantizedOutputs wanted(bool exact, bool codes, bool rows) {
    kernels::cuda::QuantizedOutputs outputs;
    if (exact) outputs.exact = want_exact();
    if (codes) outputs.codes = want_codes();
    if (rows) {
      rows_ = std::make_unique<PoisonedArray<uint16_t>>(m_ * plan_.k);
      outputs.rows = reinterpret_cast<__nv_bfloat16*>(rows_->data());
    }
    return outputs;
  }

  Bits rows() const { return rows_->to_host(); }

  // What there is of exact rows and codes against what the oracle makes of ROWS [m, k].
  void expect_oracle_of(const std::vector<float>& rows) const {
    if (values_ == nullptr && codes_.empty()) return;
    const kernels::QuantizedRows expected = kernels::quantize_rows(plan_, m_, rows.data());
    if (values_ != nullptr) expect_exact(expected);
    if (!codes_.empty()) expect_codes(expected);
  }

 private:
  static int64_t count_blocks(const kernels::InputPlan& plan) {
    int64_t blocks = 0;
    for (const auto& segment : plan.segments) blocks += padded_blocks(segment.channels);
    return blocks;
  }

  const kernels::cuda::ExactRows* want_exact() {
    values_ = std::make_unique<PoisonedArray<uint16_t>>(blocks_ * m_ * mx::kBlockSize);
    shifts_ = std::make_unique<PoisonedArray<int8_t>>(blocks_ * m_);
    special_ = std::make_unique<PoisonedArray<uint8_t>>(m_);
    exact_ = {m_, reinterpret_cast<__nv_bfloat16*>(values_->data()), shifts_->data(),
              special_->data()};
    return &exact_;
  }

  const kernels::cuda::CodeRows* want_codes() {
    code_rows_.m = m_;
    for (const auto& segment : plan_.segments) {
      const int64_t count = m_ * segment.channels;
      codes_.emplace_back(segment.format ? mx::packed_bytes(*segment.format, count) : 2 * count);
      scales_.emplace_back(segment.format ? count / mx::kBlockSize : 0);
      code_rows_.segments[codes_.size() - 1] = {codes_.back().data(),
                                                segment.format ? scales_.back().data() : nullptr};
    }
    return &code_rows_;
  }

  void expect_exact(const kernels::QuantizedRows& expected) const {
    const Bits values = values_->to_host();
    const std::vector<int8_t> shifts = shifts_->to_host();
    std::vector<uint8_t> special(m_, 0);
    int64_t wrong = 0;
    int64_t channel = 0, first_block = 0;
    for (const auto& segment : plan_.segments) {
      const int64_t real = segment.channels / mx::kBlockSize;
      for (int64_t local = 0; local < padded_blocks(segment.channels); ++local) {
        for (int64_t row = 0; row < m_; ++row) {
          ExactBlock block;
          block.values.emplace(mx::kBlockSize, uint16_t{0});
          if (local < real) {
            block = exact_block(expected, segment, row, channel + local * mx::kBlockSize);
          }
          if (block.shift != 0) special[row] = 1;
          const int64_t place = (first_block + local) * m_ + row;
          std::string problem = difference(block, values.data() + place * mx::kBlockSize);
          if (shifts[place] != block.shift) {
            problem += " shift " + std::to_string(shifts[place]) + ", expected " +
                       std::to_string(block.shift);
          }
          if (problem.empty()) continue;
          if (++wrong <= 3) {
            ADD_FAILURE() << "exact rows: row " << row << ", block " << first_block + local << ": "
                          << problem;
          }
        }
      }
      channel += segment.channels;
      first_block += padded_blocks(segment.channels);
    }
    EXPECT_EQ(wrong, 0) << "blocks";
    EXPECT_EQ(special_->to_host(), special);
  }

  void expect_codes(const kernels::QuantizedRows& expected) const {
    int64_t channel = 0;
    for (size_t s = 0; s < plan_.segments.size(); ++s) {
      const auto& segment = plan_.segments[s];
      if (segment.format) {
        expect_segment_codes(expected, s, channel);
      } else {
        expect_segment_values(expected, s, channel);
      }
      channel += segment.channels;
    }
  }

  void expect_segment_codes(const kernels::QuantizedRows& expected, size_t s,
                            int64_t channel) const {
    const auto& segment = plan_.segments[s];
    const int64_t row_bytes = mx::packed_bytes(*segment.format, segment.channels);
    const int64_t blocks = segment.channels / mx::kBlockSize;
    std::vector<uint8_t> codes(m_ * row_bytes), scales;
    for (int64_t row = 0; row < m_; ++row) {
      const int64_t at = row * plan_.k + channel;
      mx::pack(*segment.format, {expected.codes.data() + at, static_cast<size_t>(segment.channels)},
               {codes.data() + row * row_bytes, static_cast<size_t>(row_bytes)});
      const auto first = expected.scales.begin() + at / mx::kBlockSize;
      scales.insert(scales.end(), first, first + blocks);
    }
    expect_equal(codes_[s].to_host(), codes, "codes", s, row_bytes);
    expect_equal(scales_[s].to_host(), scales, "scales", s, blocks);
  }

  void expect_segment_values(const kernels::QuantizedRows& expected, size_t s,
                             int64_t channel) const {
    const auto& segment = plan_.segments[s];
    const std::vector<uint8_t> bytes = codes_[s].to_host();
    Bits values(bytes.size() / 2);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    for (int64_t row = 0; row < m_; ++row) {
      for (int64_t first = 0; first < segment.channels; first += mx::kBlockSize) {
        const ExactBlock block = exact_block(expected, segment, row, channel + first);
        ASSERT_EQ(difference(block, values.data() + row * segment.channels + first), "")
            << "values of segment " << s << ", row " << row << ", channel " << first;
      }
    }
  }

  static void expect_equal(const std::vector<uint8_t>& found, const std::vector<uint8_t>& expected,
                           const char* what, size_t segment, int64_t row_bytes) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(int{found[i]}, int{expected[i]}) << what << " of segment " << segment << ", row "
                                                 << i / row_bytes << ", byte " << i % row_bytes;
    }
  }

  kernels::InputPlan plan_;
  int64_t m_, blocks_;
  std::unique_ptr<PoisonedArray<uint16_t>> values_, rows_;
  std::unique_ptr<PoisonedArray<int8_t>> shifts_;
  std::unique_ptr<PoisonedArray<uint8_t>> special_;
  std::vector<PoisonedArray<uint8_t>> codes_, scales_;
  kernels::cuda::ExactRows exact_{};
  kernels::cuda::CodeRows code_rows_{};
};

}  // namespace micromix::testing
