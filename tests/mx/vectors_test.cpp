// Elements against ml_dtypes, and blocks against torchao and exact arithmetic in Python
// (data/mx/README.md says how the vectors were made).
#include <cmath>

#include "micromix/checkpoint/safetensors.h"
#include "micromix/mx/block.h"
#include "tests/testing.h"

namespace micromix::mx {
namespace {

TEST(Vectors, ElementsEqualMlDtypes) {
  const SafetensorsFile file(testing::data("mx/elements.safetensors"));
  for (Format format : kAllFormats) {
    const std::string prefix(name(format));
    const auto decoded = file.at(prefix + ".decode").values<float>();
    ASSERT_EQ(decoded.size(), size_t{1} << traits(format).bits);
    for (size_t code = 0; code < decoded.size(); ++code) {
      const float value = decode(format, static_cast<uint8_t>(code));
      if (std::isnan(decoded[code])) {
        EXPECT_TRUE(std::isnan(value));
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(decoded[code]));
      }
    }
    const auto inputs = file.at(prefix + ".inputs").values<float>();
    const auto codes = file.at(prefix + ".codes").octets();
    ASSERT_GT(inputs.size(), 100u);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (std::isnan(inputs[i]) && traits(format).has_nan) {
        EXPECT_TRUE(std::isnan(decode(format, encode(format, inputs[i]))));
      } else {
        EXPECT_EQ(encode(format, inputs[i]), codes[i]) << prefix << " of " << inputs[i];
      }
    }
  }
}

TEST(Vectors, BlocksEqualIndependentImplementations) {
  const SafetensorsFile file(testing::data("mx/blocks.safetensors"));
  int sets = 0;
  for (const std::string source : {"torchao", "exact"}) {
    for (Format format : kAllFormats) {
      for (ScaleRule rule : kScaleRules) {
        const std::string prefix = fmt::format("{}.{}.{}", source, name(format), name(rule));
        if (!file.tensors().contains(prefix + ".inputs")) continue;
        ++sets;
        const auto inputs = file.at(prefix + ".inputs").values<float>();
        const auto scales = file.at(prefix + ".scales").octets();
        const auto expected = file.at(prefix + ".codes").octets();
        for (size_t block = 0; block < scales.size(); ++block) {
          std::vector<uint8_t> codes(kBlockSize);
          const uint8_t scale = quantize_block(
              format, rule, std::span(inputs).subspan(block * kBlockSize, kBlockSize), codes);
          ASSERT_EQ(scale, scales[block]) << prefix << " block " << block;
          for (int i = 0; i < kBlockSize; ++i) {
            ASSERT_EQ(codes[i], expected[block * kBlockSize + i])
                << prefix << " block " << block << " of " << inputs[block * kBlockSize + i];
          }
        }
      }
    }
  }
  EXPECT_GE(sets, 15);
}

}  // namespace
}  // namespace micromix::mx
