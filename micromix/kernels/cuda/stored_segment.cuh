// A weight in device memory as a checkpoint stores it, to be put in the order that kernels want.
// For CUDA sources.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/weight_segments.h"
#include "micromix/kernels/linear.h"
#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"

namespace micromix::kernels::cuda {

struct StoredSegment {
  mx::Format format;
  int bits;
  int64_t channels;
  const uint8_t* codes;
  const uint8_t* scales;

  __device__ int64_t blocks() const { return channels / mx::kBlockSize; }

  __device__ uint32_t code(int64_t row, int64_t channel) const {
    const uint8_t* const of_row = codes + row * (channels * bits / 8);
    const int64_t bit = channel * bits;
    // The last code of three bytes ends with them, so two bytes never reach beyond.
    const uint32_t low = of_row[bit / 8];
    const uint32_t high = bit % 8 + bits > 8 ? of_row[bit / 8 + 1] : 0;
    return (high << 8 | low) >> bit % 8 & ((1u << bits) - 1);
  }
  __device__ uint8_t scale(int64_t row, int64_t block) const {
    return scales[row * blocks() + block];
  }
};

// The segments of WEIGHT, copied. The bytes stay as long as this.
class StoredSegments {
 public:
  explicit StoredSegments(const MixedWeight& weight) {
    for (const WeightSegment& segment : weight.segments) {
      const uint8_t* const codes = memory_.emplace_back(segment.codes).data();
      const uint8_t* const scales = memory_.emplace_back(segment.scales).data();
      segments_.push_back(
          {segment.format, bits_of(segment.format), segment.channels, codes, scales});
    }
  }
  const StoredSegment& operator[](int i) const { return segments_[i]; }
  auto begin() const { return segments_.begin(); }
  auto end() const { return segments_.end(); }

 private:
  std::vector<DeviceArray<uint8_t>> memory_;
  std::vector<StoredSegment> segments_;
};

// Records of RECORD_BYTES(format) for the segments of WEIGHT, which at most kMostSegments may be.
inline WeightSegments lay_out_segments(const MixedWeight& weight,
                                       int (*record_bytes)(mx::Format format)) {
  if (weight.segments.size() > kMostSegments) {
    fail("a weight of " + std::to_string(weight.segments.size()) + " segments; at most " +
         std::to_string(kMostSegments) + " are supported");
  }
  WeightSegments laid{};
  for (const WeightSegment& segment : weight.segments) {
    const auto chunks = static_cast<int32_t>((segment.channels + kChunk - 1) / kChunk);
    const int bytes = record_bytes(segment.format);
    laid.segments[laid.segment_count++] = {segment.format,
                                           static_cast<int16_t>(bytes),
                                           laid.chunks,
                                           chunks,
                                           static_cast<int32_t>(segment.channels),
                                           laid.panel_bytes};
    laid.chunks += chunks;
    laid.panel_bytes += int64_t{chunks} * bytes;
  }
  for (int s = laid.segment_count; s < kMostSegments; ++s) {
    laid.segments[s].first_chunk = std::numeric_limits<int32_t>::max();
  }
  return laid;
}

}  // namespace micromix::kernels::cuda
