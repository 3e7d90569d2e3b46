// Code rows made on the host by the oracle's quantizer.
#pragma once

#include <algorithm>
#include <vector>

#include "micromix/kernels/cuda/activations.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/packing.h"

namespace micromix::testing {

// The bytes of CodeRows; of scales only rows that there are, [chunks][m][2].
struct CodeBytes {
  std::vector<std::vector<uint8_t>> codes;  // per segment
  std::vector<uint8_t> scales;
};

inline CodeBytes code_bytes(const kernels::QuantizedRows& rows) {
  namespace cuda = kernels::cuda;
  CodeBytes bytes;
  int64_t first_channel = 0;
  for (const auto& segment : rows.plan.segments) {
    const mx::Format format = segment.format.value();
    const int64_t block_bytes = cuda::block_bytes(format);
    const int64_t blocks = segment.channels / mx::kBlockSize;
    const int64_t chunks = (segment.channels + cuda::kChunk - 1) / cuda::kChunk;
    std::vector<uint8_t> codes(chunks * rows.m * cuda::chunk_bytes(format), 0);
    const auto first_scale = static_cast<int64_t>(bytes.scales.size());
    bytes.scales.resize(first_scale + chunks * rows.m * cuda::kBlocksPerChunk, mx::kScaleOne);
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t row = 0; row < rows.m; ++row) {
        const int64_t from = row * rows.plan.k + first_channel + block * mx::kBlockSize;
        const int64_t of_row = (block / 2 * rows.m + row) * cuda::kBlocksPerChunk;
        const int place = cuda::stored_block(cuda::bits_of(format), row, block % 2);
        mx::pack(format, std::span(rows.codes).subspan(from, mx::kBlockSize),
                 std::span(codes).subspan((of_row + place) * block_bytes, block_bytes));
        bytes.scales[first_scale + of_row + block % 2] = rows.scales[from / mx::kBlockSize];
      }
    }
    bytes.codes.push_back(std::move(codes));
    first_channel += segment.channels;
  }
  return bytes;
}

// On the device, so that products are tested apart from its quantizers.
class HostCodeRows {
 public:
  explicit HostCodeRows(const kernels::QuantizedRows& rows) {
    namespace cuda = kernels::cuda;
    const CodeBytes bytes = code_bytes(rows);
    view_.m = rows.m;
    for (size_t s = 0; s < bytes.codes.size(); ++s) {
      codes_.emplace_back().assign(bytes.codes[s]);
      view_.segments[s] = {rows.plan.segments[s].format.value(), codes_.back().data()};
    }
    // Scales of rows that there are not may be anything.
    const int64_t given = rows.m * cuda::kBlocksPerChunk;
    const int64_t padded = cuda::padded_rows(rows.m) * cuda::kBlocksPerChunk;
    const int64_t chunks = std::ssize(bytes.scales) / given;
    std::vector<uint8_t> scales(chunks * padded, mx::kScaleNan);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      std::copy_n(bytes.scales.begin() + chunk * given, given, scales.begin() + chunk * padded);
    }
    scales_.assign(scales);
    view_.scales = scales_.data();
  }
  const kernels::cuda::CodeRows& view() const { return view_; }

 private:
  std::vector<kernels::cuda::DeviceArray<uint8_t>> codes_;
  kernels::cuda::DeviceArray<uint8_t> scales_;
  kernels::cuda::CodeRows view_{};
};

}  // namespace micromix::testing
