// Blocks: 32 consecutive elements that share one E8M0 scale.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "micromix/mx/element.h"
#include "micromix/mx/scale.h"

namespace micromix::mx {

// Quantizes up to 32 values to CODES (one a byte, unpacked) and returns the block's scale byte. A
// NaN or Inf among the values makes the scale NaN and every code zero.
inline uint8_t quantize_block(Format format, ScaleRule rule, std::span<const float> values,
                              std::span<uint8_t> codes) {
  assert(values.size() <= kBlockSize && codes.size() == values.size());
  float amax = 0;
  bool finite = true;
  for (float value : values) {
    finite = finite && std::isfinite(value);
    amax = std::max(amax, std::fabs(value));
  }
  if (!finite) {
    std::fill(codes.begin(), codes.end(), uint8_t{0});
    return kScaleNan;
  }
  const uint8_t scale = encode_scale(rule, format, amax);
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = encode(format, values[i], scale - kScaleBias);
  }
  return scale;
}

// CODE * 2^(SCALE - 127). Exact unless it leaves FP32's range (E4M3 and E5M2 at the extreme
// scales).
inline float dequantize(Format format, uint8_t code, uint8_t scale) {
  if (scale == kScaleNan) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(decode(format, code), scale - kScaleBias);
}

}  // namespace micromix::mx
