// The demo model against goldens of qwen2-8m, which is the same function exactly.
#include "micromix/model/text.h"
#include "tests/model/golden.h"

namespace micromix {
namespace {

TEST(DemoModel, LogitsEqualTransformers) {
  EXPECT_LE(testing::largest_logit_difference(Model(MICROMIX_DEMO_MODEL),
                                              testing::data("golden/qwen2-8m.logits.safetensors")),
            2e-3);
}

TEST(DemoModel, GreedyContinuationsEqualTransformers) {
  const Model model(MICROMIX_DEMO_MODEL);
  const auto tokenizer = load_tokenizer(MICROMIX_DEMO_MODEL, model.config());
  for (const Json& line : testing::read_jsonl(testing::data("golden/qwen2-8m.greedy.jsonl"))) {
    const auto prompt = tokenizer->encode(line.at("prompt").get<std::string>(), true);
    const auto expected = line.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(testing::greedy(model, prompt, static_cast<int64_t>(expected.size())), expected);
  }
}

// A prompt taken at once and token by token gives the same logits but for FP32 rounding.
TEST(DemoModel, CacheContinuesWhereAPromptEnded) {
  const Model model(MICROMIX_DEMO_MODEL);
  const std::vector<int32_t> ids = {17, 400, 33, 1200, 5, 99, 4000, 2};
  Context whole = model.make_context(8);
  Context stepwise = model.make_context(8);
  model.forward(ids, whole);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto a = model.next_logits({&ids[i], 1}, stepwise);
    const auto b = model.logits(static_cast<int64_t>(i), 1, whole);
    for (size_t j = 0; j < a.size(); ++j) ASSERT_NEAR(a[j], b[j], 2e-4);
  }
}

TEST(DemoModel, ContextBeyondTheRopeIsAnError) {
  const Model model(MICROMIX_DEMO_MODEL);
  GenerateOptions options;
  options.max_new_tokens = 2049;
  const std::vector<int32_t> prompt = {1};
  EXPECT_THAT(testing::error_of([&] { generate(model, prompt, options, [](int32_t) {}); }),
              ::testing::HasSubstr("max_position_embeddings of 2048"));
}

}  // namespace
}  // namespace micromix
