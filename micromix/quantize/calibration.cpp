#include "micromix/quantize/calibration.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "micromix/base/error.h"
#include "micromix/checkpoint/names.h"
#include "micromix/model/model.h"
#include "micromix/quantize/calibration_pass.h"

namespace micromix {
namespace {

// Rows kept of each input, to measure output errors on: 128 rows of an 8B model's 32 layers are
// 220 MB.
constexpr int64_t kKeptRows = 128;

// Sums over the samples of one input.
class Accumulator {
 public:
  // ROWS [length, k] of one sample.
  void add(std::span<const float> rows, int64_t length, int64_t kept_rows) {
    const int64_t k = static_cast<int64_t>(rows.size()) / length;
    if (abs_.empty()) {
      abs_.resize(k);
      squares_.resize(k);
      max_.resize(k);
    }
    tokens_ += length;
    ++samples_;
    add_channels(rows, length, k);
    add_fractions(rows);
    for (int64_t i = 0; i < kept_rows; ++i) {
      const float* row = rows.data() + (i * length / kept_rows) * k;
      for (int64_t j = 0; j < k; ++j) rows_.push_back(mx::to_bfloat16(row[j]));
    }
  }

  bool finite() const {
    return std::all_of(squares_.begin(), squares_.end(), [](double s) { return std::isfinite(s); });
  }

  InputStatistics result() const {
    const size_t k = abs_.size();
    InputStatistics input;
    for (size_t j = 0; j < k; ++j) {
      input.mean_abs.push_back(static_cast<float>(abs_[j] / static_cast<double>(tokens_)));
      input.second_moment.push_back(static_cast<float>(squares_[j] / static_cast<double>(tokens_)));
    }
    input.max_abs = max_;
    for (int t = 0; t < kThresholds; ++t) {
      input.fraction_below[t] = fractions_[t] / static_cast<double>(samples_);
    }
    input.rows = rows_;
    input.row_count = static_cast<int64_t>(rows_.size() / k);
    return input;
  }

 private:
  void add_channels(std::span<const float> rows, int64_t length, int64_t k) {
    // Threads take channels, so every sum is in the order of the tokens.
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < k; begin += 64) {
      const int64_t end = std::min(k, begin + 64);
      for (int64_t row = 0; row < length; ++row) {
        for (int64_t j = begin; j < end; ++j) {
          const float magnitude = std::fabs(rows[row * k + j]);
          abs_[j] += magnitude;
          squares_[j] += static_cast<double>(magnitude) * magnitude;
          max_[j] = std::max(max_[j], magnitude);
        }
      }
    }
  }

  void add_fractions(std::span<const float> rows) {
    float largest = 0;
    for (float x : rows) largest = std::max(largest, std::fabs(x));
    for (int t = 0; t < kThresholds; ++t) {
      const double limit = value_of(static_cast<Threshold>(t)) * largest;
      int64_t below = 0;
#pragma omp parallel for reduction(+ : below)
      for (size_t i = 0; i < rows.size(); ++i) below += std::fabs(rows[i]) <= limit;
      fractions_[t] += static_cast<double>(below) / static_cast<double>(rows.size());
    }
  }

  int64_t tokens_ = 0;
  int64_t samples_ = 0;
  std::vector<double> abs_, squares_;
  std::vector<float> max_;
  std::array<double, kThresholds> fractions_{};
  std::vector<mx::BFloat16> rows_;
};

}  // namespace

int64_t calibration_samples(int64_t tokens, const CalibrationOptions& options) {
  const int64_t samples = std::min(options.samples, tokens / options.length);
  if (samples == 0) {
    throw Error(fmt::format("the calibration text has {} tokens, under one sample of {}", tokens,
                            options.length));
  }
  return samples;
}

Statistics calibrate(const ModelWeights& weights, std::span<const int32_t> tokens,
                     const CalibrationOptions& options, const ProgressFunction& progress) {
  const ModelConfig& config = weights.config;
  if (config.quantization) {
    throw Error(fmt::format("{}: quantized already; calibrate the BF16 model it came from",
                            weights.store.model().string()));
  }
  expect_context(config, options.length);
  Statistics statistics;
  statistics.samples = calibration_samples(static_cast<int64_t>(tokens.size()), options);
  statistics.length = options.length;
  const int64_t total = statistics.samples * options.length;
  statistics.token_ids.assign(tokens.begin(), tokens.begin() + total);

  CalibrationPass pass(weights, statistics.token_ids, options.length);
  // The same number of each sample, so that they divide evenly.
  const int64_t rows =
      std::min(options.length, (kKeptRows + statistics.samples - 1) / statistics.samples);
  for (int64_t index = 0; index < config.num_layers; ++index) {
    std::array<Accumulator, kInputRoles.size()> accumulators;
    pass.advance(
        [&](InputRole role, int64_t m, std::span<const float> x) {
          accumulators[static_cast<size_t>(role)].add(x, m, rows);
        },
        progress);
    auto& results = statistics.layers.emplace_back();
    for (InputRole role : kInputRoles) {
      const Accumulator& sums = accumulators[static_cast<size_t>(role)];
      if (!sums.finite()) {
        throw_invalid(weights.store.model().string(),
                      fmt::format("{} input {}", names::layer(index), names::short_name(role)),
                      "NaN or Inf in the calibration activations", "finite values");
      }
      results[static_cast<size_t>(role)] = sums.result();
    }
  }
  return statistics;
}

}  // namespace micromix
