// Perplexity of the trained BF16 models over all of WikiText-2 valid. (Some minutes: labelled
// slow.)
#include "micromix/eval/perplexity.h"
#include "micromix/model/text.h"
#include "tests/testing.h"

namespace micromix {
namespace {

TEST(SlowPerplexity, EqualsTheGoldens) {
  const std::filesystem::path shared = MICROMIX_SHARED;
  int checked = 0;
  const Json golden_rows = read_json(shared / "golden/perplexity.json").at("rows");
  for (const Json& row : golden_rows) {
    if (row.at("dtype") != "float32") continue;
    const std::filesystem::path path = shared / "models" / row.at("model").get<std::string>();
    const Model model(path);
    const auto tokenizer = load_tokenizer(path, model.config());
    const auto tokens =
        tokenize_file(*tokenizer, model.config(), shared / "data/wikitext-2/valid.txt");
    const auto result = evaluate_perplexity(model, nullptr, tokens, {}, nullptr);
    EXPECT_EQ(result.windows, row.at("windows").get<int64_t>());
    const double golden = row.at("perplexity").get<double>();
    EXPECT_NEAR(result.perplexity, golden, golden * 1e-3) << path;
    ++checked;
  }
  EXPECT_EQ(checked, 2);
}

}  // namespace
}  // namespace micromix
