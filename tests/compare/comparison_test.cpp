// micromix compare on a few tokens of the demo model: every method, what resuming keeps, the
// report.
#include "micromix/compare/comparison.h"

#include "micromix/base/file.h"
#include "micromix/compare/report.h"
#include "tests/testing.h"

namespace micromix {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

ComparisonOptions few_tokens(std::vector<std::string> methods) {
  ComparisonOptions options;
  options.methods = std::move(methods);
  options.bits = {4.5, 6};
  options.calibration = {.samples = 2, .length = 64};
  options.evaluation.window = 64;
  options.evaluation.max_windows = 2;
  return options;
}

class Compare : public ::testing::Test {
 protected:
  Comparison run(const std::vector<std::string>& methods) {
    const fs::path data = fs::path(MICROMIX_DEMO_DATA) / "wikitext-2";
    return compare(
        MICROMIX_DEMO_MODEL, data / "valid.txt", data / "test.txt", few_tokens(methods),
        folder_ / "out", [](const ComparisonRun&) {},
        [&](int64_t, int64_t) { ++evaluated_windows_; });
  }

  testing::TemporaryFolder folder_;
  int64_t evaluated_windows_ = 0;
};

TEST_F(Compare, MeasuresEveryMethod) {
  const Comparison comparison = run(default_methods());
  ASSERT_EQ(comparison.runs.size(), default_methods().size() + 2);  // two budgets, twice
  for (const ComparisonRun& each : comparison.runs) {
    SCOPED_TRACE(each.method);
    EXPECT_GT(each.perplexity, 1);
    if (each.method == "bf16") {
      EXPECT_EQ(each.average_bits, 16);
      EXPECT_EQ(each.kl, 0);
      EXPECT_EQ(each.top1, 1);
      continue;
    }
    EXPECT_GT(each.kl, 0);
    EXPECT_LT(each.average_bits, each.bits_per_parameter);  // embeddings are BF16
    EXPECT_LT(each.bits_per_parameter, 16.01);
    if (each.target_bits) {
      EXPECT_LE(each.average_bits, *each.target_bits);
      EXPECT_GT(each.average_bits, *each.target_bits - 0.05);
    }
    EXPECT_EQ(each.allocation.empty(), each.method == "nvfp4" || each.method.starts_with("int"));
  }
}

TEST_F(Compare, GoesOnWhereItStopped) {
  const Comparison first = run({"bf16", "int8"});
  EXPECT_EQ(evaluated_windows_, 4);
  const Comparison second = run({"int8", "uniform:e4m3"});
  EXPECT_EQ(evaluated_windows_, 6);
  EXPECT_EQ(second.runs[0].kl, first.runs[1].kl);
  // Nothing that stood in the file is lost.
  const fs::path file = folder_ / "out" / "results.json";
  EXPECT_EQ(parse_comparison(read_json(file), file.string()).runs.size(), 3u);
}

TEST_F(Compare, RefusesResultsOfOtherInputs) {
  run({"bf16"});
  const fs::path file = folder_ / "out" / "results.json";
  Json json = read_json(file);
  json["inputs"]["window"] = 128;
  write_file(file, json.dump());
  EXPECT_THAT(testing::error_of([&] { run({"bf16"}); }), HasSubstr("inputs"));
  json["runs"][0]["kl"] = "none";
  write_file(file, json.dump());
  EXPECT_THAT(testing::error_of([&] { run({"bf16"}); }), HasSubstr("kl"));
}

TEST_F(Compare, ReportStandsAlone) {
  const Comparison comparison = run({"bf16", "paper", "budget"});
  const std::string page = html_report(comparison);
  for (const char* part : {"<svg", "paper", "budget", "bits a parameter", "</html>"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
  for (const char* outside : {"http://", "https://", "src=", "href=", "@import"}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
  const std::string table = markdown_table(comparison);
  EXPECT_EQ(std::ranges::count(table, '\n'), 2 + 4);
}

TEST(CompareMethods, UnknownOnesAreNamed) {
  EXPECT_EQ(method_error("budget+gptq"), std::nullopt);
  EXPECT_EQ(method_error("uniform:e2m3"), std::nullopt);
  EXPECT_THAT(method_error("best").value_or(""), HasSubstr("found 'best'"));
  EXPECT_TRUE(method_error("int4+gptq").has_value());
}

}  // namespace
}  // namespace micromix
