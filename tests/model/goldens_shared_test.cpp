// Both trained models against ../shared/golden.
#include "micromix/model/text.h"
#include "tests/model/golden.h"

namespace micromix {
namespace {

const std::filesystem::path kShared = MICROMIX_SHARED;

class Goldens : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path model() const { return kShared / "models" / GetParam(); }
  std::filesystem::path golden(const std::string& suffix) const {
    return kShared / "golden" / (GetParam() + suffix);
  }
};

TEST_P(Goldens, LogitsEqualTransformers) {
  EXPECT_LE(testing::largest_logit_difference(Model(model()), golden(".logits.safetensors")), 2e-3);
}

TEST_P(Goldens, GreedyContinuationsEqualTransformers) {
  const Model model_(model());
  const auto tokenizer = load_tokenizer(model(), model_.config());
  for (const Json& line : testing::read_jsonl(golden(".greedy.jsonl"))) {
    const auto prompt = tokenizer->encode(line.at("prompt").get<std::string>(), true);
    const auto expected = line.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(testing::greedy(model_, prompt, static_cast<int64_t>(expected.size())), expected);
    EXPECT_EQ(tokenizer->decode(expected), line.at("text").get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Goldens, ::testing::Values("llama-22m", "qwen2-8m"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace micromix
