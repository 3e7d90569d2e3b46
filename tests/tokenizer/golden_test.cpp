// Every shape of tokenizer that is supported, against the encodings of Hugging Face tokenizers and
// SentencePiece; tests/data/make_tokenizers.py makes them.
#include "tests/tokenizer/golden.h"

namespace micromix {
namespace {

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, EncodesAndDecodesAsTheReference) {
  const auto folder = std::filesystem::path(MICROMIX_TEST_DATA) / "tokenizers" / GetParam();
  check_golden(folder, folder / "golden.jsonl");
}

INSTANTIATE_TEST_SUITE_P(Shapes, Golden,
                         testing::Values("qwen2-style", "llama3-style", "gpt2-style",
                                         "llama2-style", "mistral-style", "metaspace-style",
                                         "sentencepiece"),
                         [](const auto& shape) {
                           const std::string name = shape.param;
                           return name.substr(0, name.find('-'));
                         });

}  // namespace
}  // namespace micromix
