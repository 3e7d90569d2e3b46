// Formats, scales and packing by what the specification says of them.
#include <cmath>
#include <limits>

#include "micromix/mx/bfloat16.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"
#include "tests/testing.h"

namespace micromix::mx {
namespace {

TEST(Element, TableOfTheSpecification) {
  EXPECT_EQ(decode(Format::kE2M1, 0x7), 6.0f);
  EXPECT_EQ(decode(Format::kE2M1, 0x1), 0.5f);
  EXPECT_EQ(decode(Format::kE2M3, 0x1F), 7.5f);
  EXPECT_EQ(decode(Format::kE2M3, 0x01), 0.125f);
  EXPECT_EQ(decode(Format::kE3M2, 0x1F), 28.0f);
  EXPECT_EQ(decode(Format::kE3M2, 0x01), 0.0625f);
  EXPECT_EQ(decode(Format::kE4M3, 0x7E), 448.0f);
  EXPECT_EQ(decode(Format::kE4M3, 0x01), 0x1p-9f);
  EXPECT_TRUE(std::isnan(decode(Format::kE4M3, 0x7F)));
  EXPECT_TRUE(std::isnan(decode(Format::kE4M3, 0xFF)));
  EXPECT_EQ(decode(Format::kE5M2, 0x7B), 57344.0f);
  EXPECT_EQ(decode(Format::kE5M2, 0x01), 0x1p-16f);
  EXPECT_EQ(decode(Format::kE5M2, 0x7C), std::numeric_limits<float>::infinity());
}

TEST(Element, EveryCodeRoundTrips) {
  for (Format format : kAllFormats) {
    for (int code = 0; code < 1 << traits(format).bits; ++code) {
      const float value = decode(format, static_cast<uint8_t>(code));
      if (!std::isfinite(value)) continue;
      EXPECT_EQ(encode(format, value), code) << name(format);
      // The scale only moves the exponent, as far as FP32 reaches.
      EXPECT_EQ(encode(format, std::ldexp(value, 100), 100), code) << name(format);
      EXPECT_EQ(encode(format, std::ldexp(value, -100), -100), code) << name(format);
    }
  }
}

TEST(Element, RoundsToNearestEvenBetweenNeighbours) {
  for (Format format : kAllFormats) {
    for (int code = 0; code + 1 < 1 << (traits(format).bits - 1); ++code) {
      const float low = decode(format, static_cast<uint8_t>(code));
      const float high = decode(format, static_cast<uint8_t>(code + 1));
      if (!std::isfinite(high)) break;
      const float middle = (low + high) / 2;  // exact: one more bit
      const int even = code % 2 == 0 ? code : code + 1;
      const int sign = 1 << (traits(format).bits - 1);
      EXPECT_EQ(encode(format, middle), even);
      EXPECT_EQ(encode(format, -middle), even | sign);
      EXPECT_EQ(encode(format, std::nextafter(middle, 0.0f)), code);
      EXPECT_EQ(encode(format, std::nextafter(middle, 1e9f)), code + 1);
    }
  }
}

TEST(Element, SaturatesAndKeepsSigns) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (Format format : kAllFormats) {
    const float largest = traits(format).largest;
    const uint8_t code = encode(format, largest);
    const uint8_t sign = static_cast<uint8_t>(1 << (traits(format).bits - 1));
    EXPECT_EQ(decode(format, code), largest);
    for (float value : {std::nextafter(largest, infinity), largest * 4, 3e38f, infinity}) {
      EXPECT_EQ(encode(format, value), code);
      EXPECT_EQ(encode(format, -value), code | sign);
    }
    EXPECT_EQ(encode(format, 0.0f), 0);
    EXPECT_EQ(encode(format, -0.0f), sign);
    EXPECT_TRUE(std::signbit(decode(format, sign)));
    EXPECT_EQ(encode(format, 0x1p-149f), 0);
    EXPECT_EQ(encode(format, -0x1p-149f), sign);
  }
  EXPECT_EQ(encode(Format::kE4M3, std::numeric_limits<float>::quiet_NaN()) & 0x7F, 0x7F);
}

// Scale exponent, without the bias.
int exponent(ScaleRule rule, Format format, float amax) {
  return encode_scale(rule, format, amax) - kScaleBias;
}

TEST(Scale, RulesAtTheirBoundaries) {
  for (Format format : kAllFormats) {
    const FormatTraits f = traits(format);
    for (int k : {-60, -1, 0, 5, 60}) {
      const float power = std::ldexp(1.0f, k);
      const float below = std::nextafter(power, 0.0f);
      // floor: by the exponent alone.
      EXPECT_EQ(exponent(ScaleRule::kFloor, format, power), k - f.emax);
      EXPECT_EQ(exponent(ScaleRule::kFloor, format, below), k - 1 - f.emax);
      // rceil: up as soon as the largest would be exceeded.
      const float largest = std::ldexp(f.largest, k);
      EXPECT_EQ(exponent(ScaleRule::kRceil, format, largest), k);
      EXPECT_EQ(exponent(ScaleRule::kRceil, format, std::nextafter(largest, 3e38f)), k + 1);
      EXPECT_EQ(exponent(ScaleRule::kRceil, format, power), k - f.emax);
      // even: up from half an ulp of the format below a power of two, the tie included.
      const float tie = power - std::ldexp(1.0f, k - 1 - f.mantissa_bits - 1);
      EXPECT_EQ(exponent(ScaleRule::kEven, format, tie), k - f.emax);
      EXPECT_EQ(exponent(ScaleRule::kEven, format, std::nextafter(tie, 0.0f)), k - 1 - f.emax);
    }
  }
}

TEST(Scale, RceilIsTheSmallestThatDoesNotSaturate) {
  for (Format format : kAllFormats) {
    for (float a = 0.37f; a < 1e6f; a *= 1.0173f) {
      const int s = exponent(ScaleRule::kRceil, format, a);
      EXPECT_LE(std::ldexp(a, -s), traits(format).largest);
      EXPECT_GT(std::ldexp(a, -(s - 1)), traits(format).largest);
    }
  }
}

TEST(Scale, ClampsAndZero) {
  for (ScaleRule rule : kScaleRules) {
    for (Format format : kAllFormats) {
      EXPECT_EQ(encode_scale(rule, format, 0.0f), kScaleOne);
      EXPECT_EQ(encode_scale(rule, format, 0x1p-149f), 0);
      EXPECT_EQ(encode_scale(rule, format, 0x1p-126f), 0);
    }
    EXPECT_EQ(exponent(rule, Format::kE2M1, std::numeric_limits<float>::max()),
              rule == ScaleRule::kFloor ? 125 : 126);
  }
  EXPECT_EQ(decode_scale(0), 0x1p-127f);
  EXPECT_EQ(decode_scale(127), 1.0f);
  EXPECT_EQ(decode_scale(254), 0x1p127f);
  EXPECT_TRUE(std::isnan(decode_scale(255)));
}

TEST(Block, NanAndInfMakeTheScaleNan) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values(32, 1.0f);
    values[17] = bad;
    std::vector<uint8_t> codes(32, 9);
    EXPECT_EQ(quantize_block(Format::kE2M1, ScaleRule::kRceil, values, codes), kScaleNan);
    EXPECT_EQ(codes, std::vector<uint8_t>(32, 0));
    EXPECT_TRUE(std::isnan(dequantize(Format::kE2M1, codes[0], kScaleNan)));
  }
}

TEST(Block, AllZeroHasScaleOneAndKeepsSigns) {
  std::vector<float> values(32, 0.0f);
  values[3] = -0.0f;
  std::vector<uint8_t> codes(32);
  EXPECT_EQ(quantize_block(Format::kE2M3, ScaleRule::kEven, values, codes), kScaleOne);
  EXPECT_EQ(codes[3], 0x20);
  EXPECT_EQ(codes[4], 0);
}

TEST(Packing, LayoutIsTheCheckpoints) {
  std::vector<uint8_t> packed(2);
  pack(Format::kE2M1, std::vector<uint8_t>{0x1, 0x2, 0xF, 0x0}, packed);
  EXPECT_EQ(packed, (std::vector<uint8_t>{0x21, 0x0F}));
  packed.resize(3);
  pack(Format::kE3M2, std::vector<uint8_t>{0x01, 0x02, 0x03, 0x3F}, packed);
  // 0x01 | 0x02 << 6 | 0x03 << 12 | 0x3F << 18
  EXPECT_EQ(packed, (std::vector<uint8_t>{0x81, 0x30, 0xFC}));
}

TEST(Packing, EveryCodeRoundTrips) {
  for (Format format : kOperandFormats) {
    std::vector<uint8_t> codes(256);
    for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(i % (1 << traits(format).bits));
    std::vector<uint8_t> packed(packed_bytes(format, 256)), unpacked(256);
    pack(format, codes, packed);
    unpack(format, packed, unpacked);
    EXPECT_EQ(unpacked, codes);
  }
}

TEST(BFloat16, RoundsOnceFromDouble) {
  // Through FP32 this would first round to a tie, then to even: 1 + 2^-8 + 2^-40.
  EXPECT_EQ(to_float(to_bfloat16(1.0 + 0x1p-8 + 0x1p-40)), 1.0f + 0x1p-7f);
  EXPECT_EQ(to_float(to_bfloat16(1.0 + 0x1p-8)), 1.0f);
  EXPECT_EQ(to_float(to_bfloat16(1.0 + 0x1p-8 - 0x1p-40)), 1.0f);
  EXPECT_EQ(to_float(to_bfloat16(-1.0 - 0x1p-8 - 0x1p-40)), -1.0f - 0x1p-7f);
  EXPECT_TRUE(std::isinf(to_float(to_bfloat16(1e300))));
  EXPECT_EQ(to_float(to_bfloat16(0x1p-133)), 0x1p-133f);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::nan("")))));
  EXPECT_TRUE(std::isnan(round_to_bfloat16(std::bit_cast<float>(0x7F800001u))));
}

TEST(BFloat16, HalfIsExact) {
  EXPECT_EQ(half_to_float(0x3C00), 1.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(half_to_float(0x8400), -0x1p-14f);
  EXPECT_EQ(half_to_float(0x7BFF), 65504.0f);
  EXPECT_TRUE(std::isinf(half_to_float(0xFC00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7E00)));
}

}  // namespace
}  // namespace micromix::mx
