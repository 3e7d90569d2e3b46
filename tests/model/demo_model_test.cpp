// The demo model against goldens of qwen2-8m, which is the same function exactly.
#include "tests/model/golden.h"

namespace micromix {
namespace {

TEST(DemoModel, LogitsEqualTransformers) {
  const Model model(MICROMIX_DEMO_MODEL);
  EXPECT_LE(testing::largest_logit_difference(model,
                                              testing::data("golden/qwen2-8m.logits.safetensors")),
            2e-3);
}

}  // namespace
}  // namespace micromix
