#include "micromix/kernels/cpu/panels.h"

#include <algorithm>
#include <cstring>

#include "micromix/mx/packing.h"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;
constexpr int64_t kBlockCodes = kPanel * kBlock;
constexpr int64_t kVector = 64;

int64_t packed_block_bytes(mx::Format format) {
  return mx::packed_bytes(format, kBlockCodes);
}

void pack_block(mx::Format format, const uint8_t* codes, uint8_t* packed) {
  const auto code = [&](int64_t vector, int64_t i) { return codes[vector * kVector + i]; };
  switch (mx::traits(format).bits) {
    case 4:
      for (int64_t v = 0; v < 8; ++v) {
        for (int64_t i = 0; i < kVector; ++i) {
          packed[v * kVector + i] = static_cast<uint8_t>(code(2 * v, i) | code(2 * v + 1, i) << 4);
        }
      }
      break;
    case 6:
      for (int64_t q = 0; q < 4; ++q) {
        uint8_t* const three = packed + q * 3 * kVector;
        for (int64_t i = 0; i < kVector; ++i) {
          const uint8_t z[4] = {code(4 * q, i), code(4 * q + 1, i), code(4 * q + 2, i),
                                code(4 * q + 3, i)};
          three[i] = static_cast<uint8_t>((z[0] & 15) | z[1] << 4);
          three[kVector + i] = static_cast<uint8_t>((z[2] & 15) | z[3] << 4);
          three[2 * kVector + i] =
              static_cast<uint8_t>(z[0] >> 4 | z[1] >> 4 << 2 | z[2] >> 4 << 4 | z[3] >> 4 << 6);
        }
      }
      break;
    default:
      std::memcpy(packed, codes, kBlockCodes);
  }
}

}  // namespace

PackedWeight::PackedWeight(const MixedWeight& weight) : n_(weight.n), blocks_(weight.k / kBlock) {
  for (const WeightSegment& segment : weight.segments) {
    segments_.push_back({segment.format, segment.channels / kBlock, panel_bytes_});
    panel_bytes_ += segments_.back().blocks * packed_block_bytes(segment.format);
  }
  codes_ = HugeBuffer(panels() * panel_bytes_);
  scales_ = HugeBuffer(panels() * blocks_ * kPanel);
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < panels(); ++panel) pack_panel(weight, panel);
}

void PackedWeight::pack_panel(const MixedWeight& weight, int64_t panel) {
  const int64_t columns = std::min(kPanel, n_ - panel * kPanel);
  uint8_t* packed = codes_.data() + panel * panel_bytes_;
  uint8_t* scales = scales_.data() + panel * blocks_ * kPanel;
  for (const WeightSegment& segment : weight.segments) {
    const int64_t blocks = segment.channels / kBlock;
    const int64_t bytes = mx::packed_bytes(segment.format, kBlock);
    for (int64_t block = 0; block < blocks; ++block, scales += kPanel) {
      uint8_t ordered[kBlockCodes] = {};
      std::fill(scales, scales + kPanel, mx::kScaleOne);
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t at = (panel * kPanel + column) * blocks + block;
        uint8_t codes[kBlock];
        mx::unpack(segment.format, segment.codes.subspan(at * bytes, bytes), codes);
        for (int64_t step = 0; step < kBlock / kStep; ++step) {
          std::memcpy(ordered + (step * kPanel + column) * kStep, codes + step * kStep, kStep);
        }
        scales[column] = segment.scales[at];
      }
      pack_block(segment.format, ordered, packed);
      packed += packed_block_bytes(segment.format);
    }
  }
}

void unpack_block(mx::Format format, const uint8_t* packed, uint8_t* codes) {
  switch (mx::traits(format).bits) {
    case 4:
      for (int64_t v = 0; v < 8; ++v) {
        for (int64_t i = 0; i < kVector; ++i) {
          codes[2 * v * kVector + i] = packed[v * kVector + i] & 15;
          codes[(2 * v + 1) * kVector + i] = packed[v * kVector + i] >> 4;
        }
      }
      break;
    case 6:
      for (int64_t q = 0; q < 4; ++q) {
        const uint8_t* const three = packed + q * 3 * kVector;
        for (int64_t z = 0; z < 4; ++z) {
          for (int64_t i = 0; i < kVector; ++i) {
            const int low = three[z / 2 * kVector + i] >> (z % 2 * 4) & 15;
            const int high = three[2 * kVector + i] >> (z * 2) & 3;
            codes[(4 * q + z) * kVector + i] = static_cast<uint8_t>(low | high << 4);
          }
        }
      }
      break;
    default:
      std::memcpy(codes, packed, kBlockCodes);
  }
}

}  // namespace micromix::kernels::cpu
