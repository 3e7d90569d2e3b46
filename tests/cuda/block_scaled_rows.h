// Rows for the block-scaled product, made on the host by the oracle's quantizer, so that the
// product is tested apart from the device's.
#pragma once

#include <algorithm>
#include <vector>

#include "micromix/kernels/cuda/block_scaled/layout.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/packing.h"

namespace micromix::testing {

class HostBlockScaledRows {
 public:
  explicit HostBlockScaledRows(const kernels::QuantizedRows& rows) {
    namespace bs = kernels::cuda::block_scaled;
    using kernels::cuda::kBlocksPerChunk;
    using kernels::cuda::kChunk;
    const int64_t padded = bs::padded_rows(rows.m);
    view_.m = rows.m;
    std::vector<uint8_t> scales;
    int64_t first_channel = 0;
    for (size_t s = 0; s < rows.plan.segments.size(); ++s) {
      const auto& segment = rows.plan.segments[s];
      const mx::Format format = segment.format.value();
      const int64_t chunks = (segment.channels + kChunk - 1) / kChunk;
      const int64_t row_bytes = bs::row_bytes(format);
      std::vector<uint8_t> codes(chunks * rows.m * row_bytes, 0);
      scales.resize(scales.size() + chunks * padded * kBlocksPerChunk, mx::kScaleOne);
      uint8_t* const of_segment = scales.data() + scales.size() - chunks * padded * kBlocksPerChunk;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t count = std::min<int64_t>(kChunk, segment.channels - chunk * kChunk);
        for (int64_t row = 0; row < rows.m; ++row) {
          const int64_t from = row * rows.plan.k + first_channel + chunk * kChunk;
          mx::pack(format, std::span(rows.codes).subspan(from, count),
                   std::span(codes).subspan((chunk * rows.m + row) * row_bytes,
                                            mx::packed_bytes(format, count)));
          exchange_pieces(format, static_cast<int>(row),
                          codes.data() + (chunk * rows.m + row) * row_bytes);
          std::copy_n(rows.scales.begin() + from / mx::kBlockSize, count / mx::kBlockSize,
                      of_segment + (chunk * padded + row) * kBlocksPerChunk);
        }
      }
      codes_.emplace_back().assign(codes);
      view_.segments[s] = {format, codes_.back().data()};
      first_channel += segment.channels;
    }
    scales_.assign(scales);
    view_.scales = scales_.data();
  }
  const kernels::cuda::block_scaled::RowsView& view() const { return view_; }

 private:
  static void exchange_pieces(mx::Format format, int row, uint8_t* bytes) {
    namespace bs = kernels::cuda::block_scaled;
    const std::vector<uint8_t> consecutive(bytes, bytes + bs::row_bytes(format));
    for (int piece = 0; piece < bs::row_bytes(format) / 16; ++piece) {
      std::copy_n(consecutive.begin() + piece * 16, 16,
                  bytes + bs::stored_piece(format, row, piece) * 16);
    }
  }

  std::vector<kernels::cuda::DeviceArray<uint8_t>> codes_;
  kernels::cuda::DeviceArray<uint8_t> scales_;
  kernels::cuda::block_scaled::RowsView view_{};
};

}  // namespace micromix::testing
