// The demo model's tokenizer against Hugging Face's encodings.
#include "tests/tokenizer/golden.h"

namespace micromix {
namespace {

TEST(DemoTokenizer, EncodesAndDecodesAsHuggingFace) {
  check_golden(MICROMIX_DEMO_MODEL, MICROMIX_TEST_DATA "/golden/qwen2-8m.tokens.jsonl");
}

}  // namespace
}  // namespace micromix
