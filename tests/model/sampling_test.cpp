#include "micromix/model/sampling.h"

#include <map>

#include "tests/testing.h"

namespace micromix {
namespace {

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

std::map<int32_t, int> counts(SamplingOptions options) {
  Sampler sampler(options);
  std::map<int32_t, int> result;
  for (int i = 0; i < 20000; ++i) ++result[sampler.sample(kLogits)];
  return result;
}

TEST(Sampler, GreedyTakesTheFirstOfTheMostLikely) {
  EXPECT_EQ(Sampler({}).sample(kLogits), 1);
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  const auto seen = counts({.temperature = 1, .top_k = 3, .top_p = 1, .seed = 1});
  EXPECT_THAT(seen,
              ::testing::ElementsAre(::testing::Key(1), ::testing::Key(2), ::testing::Key(3)));
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  // Probabilities of 1 and 3 are 0.396 each, so both are needed for 0.5 and suffice for 0.79.
  EXPECT_EQ(counts({.temperature = 1, .top_k = 0, .top_p = 0.3, .seed = 2}).size(), 1u);
  EXPECT_EQ(counts({.temperature = 1, .top_k = 0, .top_p = 0.5, .seed = 2}).size(), 2u);
  EXPECT_EQ(counts({.temperature = 1, .top_k = 0, .top_p = 0.8, .seed = 2}).size(), 3u);
}

TEST(Sampler, FrequenciesAreTheSoftmax) {
  const auto seen = counts({.temperature = 2, .top_k = 0, .top_p = 1, .seed = 3});
  double total = 0;
  for (float logit : kLogits) total += std::exp(logit / 2);
  for (const auto& [token, count] : seen) {
    const double p = std::exp(kLogits[token] / 2) / total;
    EXPECT_NEAR(count / 20000.0, p, 5 * std::sqrt(p * (1 - p) / 20000)) << token;
  }
}

TEST(Sampler, SeedDecidesTheText) {
  const SamplingOptions options{.temperature = 1, .top_k = 0, .top_p = 1, .seed = 4};
  Sampler a(options), b(options);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.sample(kLogits), b.sample(kLogits));
}

}  // namespace
}  // namespace micromix
