// What the device's quantizers wrote, held against the oracle byte by byte.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/quantize.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
#include "micromix/mx/packing.h"
#include "tests/cuda/code_rows.h"

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

// The first difference of row ROW's block, if any.
inline std::string difference(const ExactBlock& expected, int64_t row, const uint16_t* block) {
  for (int i = 0; i < mx::kBlockSize; ++i) {
    const uint16_t found = block[kernels::cuda::exact_place(row, i)];
    if (expected.values ? found == (*expected.values)[i] : is_nan(found)) continue;
    return "element " + std::to_string(i) + " is " + std::to_string(mx::to_float({found})) +
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
    if (codes && !has_bf16_segments()) outputs.codes = want_codes();
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
  // Of which there are no code rows.
  bool has_bf16_segments() const {
    return std::ranges::any_of(plan_.segments,
                               [](const auto& segment) { return !segment.format.has_value(); });
  }

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
      const int64_t chunks = padded_blocks(segment.channels) / kernels::cuda::kBlocksPerChunk;
      codes_.emplace_back(chunks * m_ * kernels::cuda::chunk_bytes(*segment.format));
      code_rows_.segments[codes_.size() - 1] = {*segment.format, codes_.back().data()};
    }
    scales_ = std::make_unique<PoisonedArray<uint8_t>>(blocks_ * kernels::cuda::padded_rows(m_));
    code_rows_.scales = scales_->data();
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
          std::string problem = difference(block, row, values.data() + place * mx::kBlockSize);
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
    const CodeBytes bytes = code_bytes(expected);
    for (size_t s = 0; s < codes_.size(); ++s) {
      expect_equal(codes_[s].to_host(), bytes.codes[s], fmt::format("codes of segment {}", s));
    }
    const int64_t given = m_ * kernels::cuda::kBlocksPerChunk;
    const int64_t padded = kernels::cuda::padded_rows(m_) * kernels::cuda::kBlocksPerChunk;
    const std::vector<uint8_t> found = scales_->to_host();
    std::vector<uint8_t> scales;
    for (int64_t at = 0; at < std::ssize(found); at += padded) {
      scales.insert(scales.end(), found.begin() + at, found.begin() + at + given);
    }
    expect_equal(scales, bytes.scales, "scales");
  }

  static void expect_equal(const std::vector<uint8_t>& found, const std::vector<uint8_t>& expected,
                           const std::string& what) {
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(int{found[i]}, int{expected[i]}) << what << ", byte " << i;
    }
  }

  kernels::InputPlan plan_;
  int64_t m_, blocks_;
  std::unique_ptr<PoisonedArray<uint16_t>> values_, rows_;
  std::unique_ptr<PoisonedArray<int8_t>> shifts_;
  std::unique_ptr<PoisonedArray<uint8_t>> special_;
  std::vector<PoisonedArray<uint8_t>> codes_;
  std::unique_ptr<PoisonedArray<uint8_t>> scales_;
  kernels::cuda::ExactRows exact_{};
  kernels::cuda::CodeRows code_rows_{};
};

}  // namespace micromix::testing
