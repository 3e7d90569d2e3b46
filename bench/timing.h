// Clock, medians, and the interleaving that ratios rest on.
#pragma once

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace micromix::bench {

// Seconds since some start.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double median(std::vector<double> values) {
  assert(!values.empty());
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

// The median of numerator / denominator, each pair from one round.
inline double median_ratio(const std::vector<double>& numerators,
                           const std::vector<double>& denominators) {
  assert(numerators.size() == denominators.size());
  std::vector<double> ratios(numerators.size());
  for (size_t i = 0; i < ratios.size(); ++i) ratios[i] = numerators[i] / denominators[i];
  return median(std::move(ratios));
}

// One of the things measured in turn. A pass does its operation REPEATS times and returns the
// seconds spent in the part that is told apart, if any.
struct Contender {
  std::function<double()> pass;
  int64_t repeats = 1;
  std::vector<double> seconds = {};  // an operation's, a round each
  std::vector<double> part = {};     // its part's
};

// A B C A B C: each in turn for a round, once to warm up and ROUNDS times that count. A round is as
// many passes as fill kRoundSeconds.
//
// Not by Google Benchmark, which runs one thing's repetitions in a row, or all of them shuffled:
// where strangers share clock and memory, a ratio means something only between neighbours in time.
inline constexpr double kRoundSeconds = 0.03;

inline void run_interleaved(const std::vector<Contender*>& contenders, int rounds) {
  for (int round = -1; round < rounds; ++round) {
    for (Contender* contender : contenders) {
      const double start = now();
      double elapsed = 0;
      double part = 0;
      int64_t operations = 0;
      while (elapsed < kRoundSeconds) {
        part += contender->pass();
        operations += contender->repeats;
        elapsed = now() - start;
      }
      if (round < 0) continue;
      contender->seconds.push_back(elapsed / static_cast<double>(operations));
      contender->part.push_back(part / static_cast<double>(operations));
    }
  }
}

}  // namespace micromix::bench
