// Looking at what was quantized: its codes, and what it computes.
#pragma once

#include <cmath>
#include <filesystem>
#include <span>
#include <vector>

#include "micromix/model/model.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"
#include "tests/quantize/demo.h"

namespace micromix::testing {

// All logits of a few tokens; HEAD runs the final norm and lm_head.
inline std::vector<float> logits_of(const std::filesystem::path& path,
                                    const kernels::Backend& layers = kernels::reference_backend(),
                                    const kernels::Backend& head = kernels::reference_backend()) {
  const Model model(path, layers, head);
  const auto ids = some_tokens(24, model.config().vocab_size);
  Context context = model.make_context(24);
  model.forward(ids, context);
  const auto logits = model.logits(0, 24, context);
  return {logits.begin(), logits.end()};
}

inline double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

// Row ROW of LINEAR holds the codes and scales that the oracle makes of VALUES, which are in the
// order of its segments.
inline void expect_oracle_row(const LinearWeights& linear, int64_t row,
                              std::span<const float> values, mx::ScaleRule rule) {
  for (const LinearWeights::Segment& segment : linear.segments) {
    const int64_t bytes = mx::packed_bytes(segment.format, segment.channels);
    std::vector<uint8_t> codes(segment.channels);
    mx::unpack(segment.format, segment.codes->octets().subspan(row * bytes, bytes), codes);
    for (int64_t block = 0; block < segment.channels / 32; ++block) {
      std::vector<uint8_t> expected(32);
      const uint8_t scale = mx::quantize_block(segment.format, rule, values.first(32), expected);
      values = values.subspan(32);
      ASSERT_EQ(segment.scales->octets()[row * segment.channels / 32 + block], scale);
      for (int64_t i = 0; i < 32; ++i) ASSERT_EQ(codes[block * 32 + i], expected[i]);
    }
  }
}

}  // namespace micromix::testing
