// Packed codes, as they lie in a checkpoint: 4-bit codes low nibble first; four 6-bit codes in
// three bytes, least significant bits first; 8-bit codes as bytes.
#pragma once

#include <cassert>
#include <cstdint>
#include <span>

#include "micromix/mx/format.h"

namespace micromix::mx {

// CODES (one a byte) to PACKED. codes.size() must fill whole bytes, and packed.size() equal
// packed_bytes(format, codes.size()).
inline void pack(Format format, std::span<const uint8_t> codes, std::span<uint8_t> packed) {
  assert(static_cast<int64_t>(packed.size()) ==
         packed_bytes(format, static_cast<int64_t>(codes.size())));
  switch (traits(format).bits) {
    case 4:
      for (size_t i = 0; i < packed.size(); ++i) {
        packed[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
      }
      break;
    case 6:
      for (size_t i = 0, j = 0; j + 2 < packed.size(); i += 4, j += 3) {
        const uint32_t word =
            codes[i] | codes[i + 1] << 6 | codes[i + 2] << 12 | codes[i + 3] << 18;
        packed[j] = static_cast<uint8_t>(word);
        packed[j + 1] = static_cast<uint8_t>(word >> 8);
        packed[j + 2] = static_cast<uint8_t>(word >> 16);
      }
      break;
    default:
      for (size_t i = 0; i < packed.size(); ++i) packed[i] = codes[i];
  }
}

// The other way.
inline void unpack(Format format, std::span<const uint8_t> packed, std::span<uint8_t> codes) {
  assert(static_cast<int64_t>(packed.size()) ==
         packed_bytes(format, static_cast<int64_t>(codes.size())));
  switch (traits(format).bits) {
    case 4:
      for (size_t i = 0; i < packed.size(); ++i) {
        codes[2 * i] = packed[i] & 15;
        codes[2 * i + 1] = packed[i] >> 4;
      }
      break;
    case 6:
      for (size_t i = 0, j = 0; j + 2 < packed.size(); i += 4, j += 3) {
        const uint32_t word = packed[j] | packed[j + 1] << 8 | packed[j + 2] << 16;
        for (int k = 0; k < 4; ++k) codes[i + k] = word >> (6 * k) & 63;
      }
      break;
    default:
      for (size_t i = 0; i < packed.size(); ++i) codes[i] = packed[i];
  }
}

}  // namespace micromix::mx
