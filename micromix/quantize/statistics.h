// What calibration learns of each linear input, and the STATS file that keeps it.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/plan.h"
#include "micromix/mx/bfloat16.h"

namespace micromix {

// The thresholds of MicroMix (arXiv 2508.02343, section 3), as fractions of a sample's largest |x|:
// an element at most this large loses no more to the format than to INT8.
//   T(n) = 2^b 2^(n-1) / q_max / 254, with b the exponent bias, n the bits and q_max the largest
// value of the format: 0.0105 for E2M1, 0.0336 for E2M3, 0.0360 for E3M2.
double paper_threshold(mx::Format format);

// The constants of the authors' released code.
inline constexpr double kReleasedThreshold4 = 0.0729;
inline constexpr double kReleasedThreshold6 = 0.25;

// The thresholds that calibration counts elements below.
enum class Threshold : uint8_t { kPaperE2M1, kPaperE2M3, kPaperE3M2, kReleased4, kReleased6 };
inline constexpr int kThresholds = 5;
double value_of(Threshold threshold);

// Statistics of one linear input over all calibration tokens.
struct InputStatistics {
  std::vector<float> mean_abs;       // [K], mean |x|
  std::vector<float> max_abs;        // [K]
  std::vector<float> second_moment;  // [K], mean x^2
  // Share of elements at most the threshold times the largest |x| of their calibration sample, mean
  // over samples.
  std::array<double, kThresholds> fraction_below{};
  // KL(BF16 || model), nats, when the readers of this input alone are FP4 (sensitivity.h); none
  // until it was measured.
  std::optional<double> fp4_kl;
  std::vector<mx::BFloat16> rows;  // [row_count, K], some rows spread evenly over the tokens
  int64_t row_count = 0;

  int64_t channels() const { return static_cast<int64_t>(mean_abs.size()); }
  double below(Threshold threshold) const { return fraction_below[static_cast<size_t>(threshold)]; }
};

struct Statistics {
  int64_t samples = 0;
  int64_t length = 0;              // tokens a sample
  std::string text_hash;           // of the calibration text's bytes
  std::string model_hash;          // see model_hash()
  std::vector<int32_t> token_ids;  // [samples * length]
  std::vector<std::array<InputStatistics, kInputRoles.size()>> layers;

  const InputStatistics& at(int64_t layer, InputRole role) const {
    return layers[layer][static_cast<size_t>(role)];
  }
};

// A safetensors file; docs/format.md says what it holds. Durable. Throws Error.
void save_statistics(const std::filesystem::path& path, const Statistics& statistics);

// Throws Error where the file is malformed, or was not made from a model of this hash and shape.
Statistics load_statistics(const std::filesystem::path& path, const ModelConfig& config,
                           const std::string& model_hash);

}  // namespace micromix
