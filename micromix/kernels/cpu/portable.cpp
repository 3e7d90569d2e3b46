// Plain C++ for any CPU: the layouts as loops. A wide product is rounded before it is added.
#include "micromix/kernels/cpu/tile_includes.h"

namespace micromix::kernels::cpu {
namespace {
constexpr int kWideBytes = 4;
}
}  // namespace micromix::kernels::cpu

#include "micromix/kernels/cpu/any_scale.inc"
#include "micromix/kernels/cpu/rows.inc"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kBlockCodes = kPanel * kBlock;

void expand_integer(mx::Format format, const uint8_t* codes, int64_t blocks, std::byte* out) {
  const auto& table = mx::decode_table(format);
  const float factor = static_cast<float>(1 << integer_shift(format));
  uint8_t integers[256];
  for (int code = 0; code < 1 << mx::traits(format).bits; ++code) {
    integers[code] =
        static_cast<uint8_t>(static_cast<int>(table[code] * factor) + integer_offset(format));
  }
  auto* to = reinterpret_cast<uint8_t*>(out);
  for (int64_t b = 0; b < blocks; ++b) {
    unpack_block(format, codes, to);
    for (int64_t i = 0; i < kBlockCodes; ++i) to[i] = integers[to[i]];
    codes += mx::packed_bytes(format, kBlockCodes);
    to += kBlockCodes;
  }
}

void expand_wide(mx::Format format, const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                 std::byte* out) {
  const auto& table = mx::decode_table(format);
  for (int64_t b = 0; b < blocks; ++b, scales += kPanel) {
    float units[kPanel];
    for (int64_t j = 0; j < kPanel; ++j) units[j] = mx::decode_scale(scales[j]);
    uint8_t ordered[kBlockCodes];
    unpack_block(format, codes, ordered);
    for (int64_t channel = 0; channel < kBlock; ++channel) {
      float values[kPanel];
      for (int64_t j = 0; j < kPanel; ++j) {
        values[j] =
            table[ordered[(channel / kStep * kPanel + j) * kStep + channel % kStep]] * units[j];
      }
      std::memcpy(out, values, sizeof values);
      out += sizeof values;
    }
    codes += mx::packed_bytes(format, kBlockCodes);
  }
}

void expand_dense(const std::byte* rows, int64_t stride, int64_t columns, int64_t blocks,
                  std::byte* out) {
  for (int64_t channel = 0; channel < blocks * kBlock; ++channel) {
    for (int64_t j = 0; j < kPanel; ++j, out += 4) {
      uint16_t bits = 0;
      if (j < columns) std::memcpy(&bits, rows + j * stride + channel * 2, 2);
      const uint32_t value = uint32_t{bits} << 16;
      std::memcpy(out, &value, 4);
    }
  }
}

void multiply_integer(const TileProduct& p) {
  multiply_integer_any_scale(p);
}

void multiply_wide(const TileProduct& p) {
  multiply_wide_any_scale<kWideBytes>(p);
}

constexpr decltype(Kernels::quantize_tile) kQuantizeTile = nullptr;
constexpr decltype(Kernels::multiply_packed_integer) kMultiplyPackedInteger = nullptr;
constexpr decltype(Kernels::multiply_packed_wide) kMultiplyPackedWide = nullptr;
constexpr decltype(Kernels::multiply_dense_row) kMultiplyDenseRow = nullptr;

}  // namespace

const Kernels& portable_kernels() {
  static const Kernels kernels = MICROMIX_CPU_KERNELS(portable);
  return kernels;
}

}  // namespace micromix::kernels::cpu
