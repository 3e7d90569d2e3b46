// The shared models' tokenizers against Hugging Face's encodings.
#include "tests/tokenizer/golden.h"

namespace micromix {
namespace {

const std::filesystem::path kShared = MICROMIX_SHARED;

TEST(SharedGolden, Llama) {
  check_golden(kShared / "models/llama-22m", kShared / "golden/llama-22m.tokens.jsonl");
}

TEST(SharedGolden, Qwen2) {
  check_golden(kShared / "models/qwen2-8m", kShared / "golden/qwen2-8m.tokens.jsonl");
}

}  // namespace
}  // namespace micromix
