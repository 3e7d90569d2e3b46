// The element formats of OCP Microscaling Formats (MX) v1.0, section 5.3, as facts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace micromix::mx {

// E2M1 to E4M3 are operand formats and stand in the order of segments in a plan; E5M2 exists in the
// oracle only.
enum class Format : uint8_t { kE2M1, kE2M3, kE3M2, kE4M3, kE5M2 };

inline constexpr std::array kOperandFormats = {Format::kE2M1, Format::kE2M3, Format::kE3M2,
                                               Format::kE4M3};
inline constexpr std::array kAllFormats = {Format::kE2M1, Format::kE2M3, Format::kE3M2,
                                           Format::kE4M3, Format::kE5M2};

// Elements that share one E8M0 scale.
inline constexpr int kBlockSize = 32;

struct FormatTraits {
  std::string_view name;
  int bits;
  int exponent_bits;
  int mantissa_bits;
  int bias;
  int emax;              // exponent of the largest finite value
  float largest;         // the largest finite value
  int largest_mantissa;  // the mantissa field of it
  bool has_nan;
};

constexpr FormatTraits traits(Format format) {
  switch (format) {
    case Format::kE2M1:
      return {"e2m1", 4, 2, 1, 1, 2, 6.0f, 1, false};
    case Format::kE2M3:
      return {"e2m3", 6, 2, 3, 1, 2, 7.5f, 7, false};
    case Format::kE3M2:
      return {"e3m2", 6, 3, 2, 3, 4, 28.0f, 3, false};
    // S.1111.111 is NaN, so the largest has mantissa 110.
    case Format::kE4M3:
      return {"e4m3", 8, 4, 3, 7, 8, 448.0f, 6, true};
    case Format::kE5M2:
      return {"e5m2", 8, 5, 2, 15, 15, 57344.0f, 3, true};
  }
  return {};
}

constexpr std::string_view name(Format format) {
  return traits(format).name;
}

// The format called NAME ("e2m1", …), among FORMATS; none otherwise.
template <size_t N>
constexpr std::optional<Format> parse_format(std::string_view text,
                                             const std::array<Format, N>& formats) {
  for (Format format : formats) {
    if (name(format) == text) return format;
  }
  return std::nullopt;
}

// Bytes of COUNT packed codes; COUNT * bits must be a multiple of 8.
constexpr int64_t packed_bytes(Format format, int64_t count) {
  return count * traits(format).bits / 8;
}

// Bits a value costs, its share of the block's scale byte included.
constexpr double bits_per_value(Format format) {
  return traits(format).bits + 8.0 / kBlockSize;
}

}  // namespace micromix::mx
