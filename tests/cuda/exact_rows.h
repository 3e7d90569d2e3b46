// Exact rows made on the host by the oracle's quantizer, so that the product is tested apart from
// the device's.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"

namespace micromix::testing {

class HostExactRows {
 public:
  explicit HostExactRows(const kernels::QuantizedRows& rows) {
    const int64_t m = rows.m;
    int64_t blocks = 0;
    for (const auto& segment : rows.plan.segments) blocks += padded_blocks(segment.channels);
    std::vector<uint16_t> values(blocks * m * mx::kBlockSize, 0);
    std::vector<int8_t> shifts(blocks * m, 0);
    std::vector<uint8_t> special(m, 0);
    int64_t channel = 0, first_block = 0;
    for (const auto& segment : rows.plan.segments) {
      for (int64_t block = 0; block < segment.channels / mx::kBlockSize; ++block) {
        for (int64_t row = 0; row < m; ++row) {
          const int64_t place = (first_block + block) * m + row;
          const int64_t from = row * rows.plan.k + channel + block * mx::kBlockSize;
          shifts[place] =
              make_block(rows, segment, row, from, values.data() + place * mx::kBlockSize);
          if (shifts[place] != 0) special[row] = 1;
        }
      }
      channel += segment.channels;
      first_block += padded_blocks(segment.channels);
    }
    values_.resize(static_cast<int64_t>(values.size()));
    kernels::cuda::check(
        cudaMemcpy(values_.data(), values.data(), values.size() * 2, cudaMemcpyHostToDevice),
        "copy");
    shifts_.assign(shifts);
    special_.assign(special);
    view_ = {m, values_.data(), shifts_.data(), special_.data()};
  }
  const kernels::cuda::ExactRows& view() const { return view_; }

 private:
  static int64_t padded_blocks(int64_t channels) {
    return (channels + kernels::cuda::kChunk - 1) / kernels::cuda::kChunk *
           kernels::cuda::kBlocksPerChunk;
  }

  // The shift of row ROW's block whose first value is FROM.
  static int8_t make_block(const kernels::QuantizedRows& rows,
                           const kernels::InputPlan::Segment& segment, int64_t row, int64_t from,
                           uint16_t* out) {
    const bool quantized = segment.format.has_value();
    const uint8_t scale = quantized ? rows.scales[from / mx::kBlockSize] : mx::kScaleOne;
    bool finite = scale != mx::kScaleNan;
    bool zero = true;
    for (int i = 0; i < mx::kBlockSize; ++i) {
      const float value =
          quantized ? mx::decode(*segment.format, rows.codes[from + i]) : rows.values[from + i];
      finite = finite && std::isfinite(value);
      zero = zero && value == 0;
    }
    const int exponent = scale - mx::kScaleBias;
    const int8_t shift = !finite || zero                                   ? 0
                         : exponent < kernels::cuda::kLowestExactExponent  ? -1
                         : exponent > kernels::cuda::kHighestExactExponent ? 1
                                                                           : 0;
    for (int i = 0; i < mx::kBlockSize; ++i) {
      const float value = quantized ? std::ldexp(mx::decode(*segment.format, rows.codes[from + i]),
                                                 zero ? 0 : exponent - 128 * shift)
                                    : rows.values[from + i];
      out[kernels::cuda::exact_place(row, i)] = finite ? mx::to_bfloat16(value).bits : 0x7FC0;
    }
    return shift;
  }

  kernels::cuda::DeviceArray<__nv_bfloat16> values_;
  kernels::cuda::DeviceArray<int8_t> shifts_;
  kernels::cuda::DeviceArray<uint8_t> special_;
  kernels::cuda::ExactRows view_{};
};

}  // namespace micromix::testing
