#include "micromix/quantize/gptq.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/checkpoint/safetensors.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"
#include "tests/testing.h"

namespace micromix {
namespace {

constexpr int64_t kN = 24;
constexpr int64_t kK = 160;

// A random dense weight [kN, kK] in a file.
class Gptq : public ::testing::Test {
 protected:
  Gptq() {
    std::normal_distribution<float> normal;
    weight_.resize(kN * kK);
    for (float& value : weight_) value = 0.1f * normal(random_);
    const TensorData data{"w", DType::kF32, {kN, kK}, std::as_bytes(std::span(weight_))};
    write_safetensors(folder_ / "w.safetensors", {&data, 1});
    file_.emplace(folder_ / "w.safetensors");
    linear_.n = kN;
    linear_.k = kK;
    linear_.dense = &file_->at("w");
    plan_.channels = {64, 32, 32, 32};
    plan_.permutation.resize(kK);
    std::iota(plan_.permutation.begin(), plan_.permutation.end(), 0);
    std::shuffle(plan_.permutation.begin(), plan_.permutation.end(), random_);
  }

  kernels::InputPlan input_plan() const {
    kernels::InputPlan plan{kK, plan_.permutation, {}, mx::ScaleRule::kEven};
    for (size_t f = 0; f < plan_.channels.size(); ++f) {
      plan.segments.push_back({mx::kOperandFormats[f], mx::kOperandFormats[f], plan_.channels[f]});
    }
    return plan;
  }

  // Rows whose channels are mixtures of 40 sources, and some noise of their own.
  std::vector<float> correlated_rows(int64_t m) {
    std::normal_distribution<float> normal;
    std::vector<float> mixing(40 * kK), rows(m * kK);
    for (float& value : mixing) value = normal(random_);
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t j = 0; j < kK; ++j) rows[row * kK + j] = normal(random_);
      for (int64_t source = 0; source < 40; ++source) {
        const float x = normal(random_);
        for (int64_t j = 0; j < kK; ++j) rows[row * kK + j] += x * mixing[source * kK + j];
      }
    }
    return rows;
  }

  // Quantized values of the rows, in the plan's order.
  std::vector<float> quantized(const std::vector<float>& rows) const {
    const int64_t m = static_cast<int64_t>(rows.size()) / kK;
    const kernels::QuantizedRows codes = kernels::quantize_rows(input_plan(), m, rows.data());
    std::vector<float> out(rows.size());
    for (int64_t row = 0; row < m; ++row) {
      kernels::dequantize_row(codes, row, out.data() + row * kK);
    }
    return out;
  }

  std::mt19937 random_{7};
  testing::TemporaryFolder folder_;
  std::vector<float> weight_;
  std::optional<SafetensorsFile> file_;
  LinearWeights linear_;
  Plan plan_;
};

// The weight in the plan's order, [n, k].
std::vector<float> dequantized(const QuantizedLinear& linear) {
  std::vector<float> out(linear.n * linear.k);
  int64_t channel = 0;
  for (const QuantizedLinear::Segment& segment : linear.segments) {
    const int64_t bytes = mx::packed_bytes(segment.format, segment.channels);
    for (int64_t row = 0; row < linear.n; ++row) {
      std::vector<uint8_t> codes(segment.channels);
      mx::unpack(segment.format, std::span(segment.codes).subspan(row * bytes, bytes), codes);
      for (int64_t i = 0; i < segment.channels; ++i) {
        const uint8_t scale = segment.scales[row * segment.channels / 32 + i / 32];
        out[row * linear.k + channel + i] = mx::dequantize(segment.format, codes[i], scale);
      }
    }
    channel += segment.channels;
  }
  return out;
}

// ||X (W - Q)^T||^2, all in the plan's order.
double output_error(const std::vector<float>& x, const std::vector<float>& w,
                    const std::vector<float>& q) {
  double error = 0;
  for (size_t row = 0; row < x.size() / kK; ++row) {
    for (int64_t n = 0; n < kN; ++n) {
      double sum = 0;
      for (int64_t j = 0; j < kK; ++j) sum += x[row * kK + j] * (w[n * kK + j] - q[n * kK + j]);
      error += sum * sum;
    }
  }
  return error;
}

// Row c of the inverse of H that GPTQ's paper works with, for every channel c when its turn comes,
// in the order and with the damping of GptqFactor: an explicit inverse that loses a row and column
// at each step.
std::vector<std::vector<double>> inverse_rows(const std::vector<float>& x,
                                              const std::vector<int32_t>& position) {
  std::vector<double> h(kK * kK);
  for (int64_t i = 0; i < kK; ++i) {
    for (int64_t j = 0; j < kK; ++j) {
      for (size_t row = 0; row < x.size() / kK; ++row) {
        h[i * kK + j] += static_cast<double>(x[row * kK + i]) * x[row * kK + j];
      }
    }
  }
  for (int64_t i = 0; i < kK; ++i) h[i * kK + i] *= 1.01;
  // Gauss-Jordan: the inverse of a positive definite matrix in place.
  for (int64_t p = 0; p < kK; ++p) {
    const double pivot = h[p * kK + p];
    h[p * kK + p] = 1;
    for (int64_t j = 0; j < kK; ++j) h[p * kK + j] /= pivot;
    for (int64_t i = 0; i < kK; ++i) {
      if (i == p) continue;
      const double factor = h[i * kK + p];
      h[i * kK + p] = 0;
      for (int64_t j = 0; j < kK; ++j) h[i * kK + j] -= factor * h[p * kK + j];
    }
  }
  std::vector<std::vector<double>> rows(kK);
  for (int64_t step = kK; step-- > 0;) {
    const int64_t c = position[step];
    rows[c].assign(h.begin() + c * kK, h.begin() + (c + 1) * kK);
    const std::vector<double> old = h;
    for (int64_t i = 0; i < kK; ++i) {
      for (int64_t j = 0; j < kK; ++j) {
        h[i * kK + j] -= old[i * kK + c] * old[c * kK + j] / old[c * kK + c];
      }
    }
  }
  return rows;
}

mx::Format format_at(const Plan& plan, int64_t position) {
  size_t f = 0;
  for (int64_t end = plan.channels[0]; position >= end; end += plan.channels[++f]) {
  }
  return mx::kOperandFormats[f];
}

// GPTQ as its paper has it, with a block's scale chosen among three by what the block costs.
std::vector<float> slow_gptq(const std::vector<float>& x, std::vector<double> w, const Plan& plan,
                             const std::vector<int32_t>& position) {
  const auto inverse = inverse_rows(x, position);
  std::vector<float> q(kN * kK);
  for (int64_t n = 0; n < kN; ++n) {
    std::vector<double> row(w.begin() + n * kK, w.begin() + (n + 1) * kK);
    for (int64_t end = kK; end > 0; end -= 32) {
      const mx::Format format = format_at(plan, position[end - 1]);
      float amax = 0;
      for (int64_t step = end - 32; step < end; ++step) {
        amax = std::max(amax, static_cast<float>(std::fabs(row[position[step]])));
      }
      const uint8_t scale = mx::encode_scale(mx::ScaleRule::kEven, format, amax);
      const std::vector<double> before = row;
      double best = std::numeric_limits<double>::infinity();
      for (int candidate : {scale + 0, scale - 1, scale + 1}) {
        std::vector<double> trial = before;
        double cost = 0;
        float rounded[32];
        for (int64_t step = end; step-- > end - 32;) {
          const int64_t c = position[step];
          const uint8_t code =
              mx::encode(format, static_cast<float>(trial[c]), candidate - mx::kScaleBias);
          rounded[step - end + 32] = mx::dequantize(format, code, static_cast<uint8_t>(candidate));
          const double error = trial[c] - rounded[step - end + 32];
          cost += error * error / inverse[c][c];
          for (int64_t earlier = 0; earlier < step; ++earlier) {
            trial[position[earlier]] -= error / inverse[c][c] * inverse[c][position[earlier]];
          }
        }
        if (cost >= best) continue;
        best = cost;
        row = trial;
        for (int64_t i = 0; i < 32; ++i) q[n * kK + position[end - 32 + i]] = rounded[i];
      }
    }
  }
  return q;
}

TEST_F(Gptq, EqualsTheInverseForm) {
  const std::vector<float> rows = correlated_rows(400);
  InputMoments moments(input_plan());
  moments.add(150, rows.data());
  moments.add(250, rows.data() + 150 * kK);
  const GptqFactor factor(moments, plan_);
  const std::vector<float> fast =
      dequantized(quantize_linear_gptq(linear_, plan_, {}, mx::ScaleRule::kEven, factor));
  const std::vector<float> w = permuted_weight(linear_, plan_, {});
  const std::vector<float> slow =
      slow_gptq(quantized(rows), {w.begin(), w.end()}, plan_, factor.position());
  // FP32 feedback may turn a tie, and what follows from it.
  int64_t different = 0;
  for (int64_t i = 0; i < kN * kK; ++i) different += fast[i] != slow[i];
  EXPECT_LE(different, kN * kK / 50);
  const std::vector<float> x = quantized(rows);
  EXPECT_NEAR(output_error(x, w, fast) / output_error(x, w, slow), 1.0, 0.02);
}

TEST_F(Gptq, LeavesLessErrorThanNearest) {
  const std::vector<float> rows = correlated_rows(400);
  InputMoments moments(input_plan());
  moments.add(400, rows.data());
  const std::vector<float> x = quantized(rows);
  const std::vector<float> w = permuted_weight(linear_, plan_, {});
  for (mx::ScaleRule rule : mx::kScaleRules) {
    const auto nearest = dequantized(quantize_linear(linear_, plan_, {}, rule));
    const auto gptq =
        dequantized(quantize_linear_gptq(linear_, plan_, {}, rule, GptqFactor(moments, plan_)));
    EXPECT_LT(output_error(x, w, gptq), 0.5 * output_error(x, w, nearest)) << mx::name(rule);
  }
}

// Without correlation there is no feedback: each block is rounded to nearest, with the scale of the
// three that leaves the least squared error.
TEST_F(Gptq, RoundsToNearestWhereChannelsAreUncorrelated) {
  std::vector<float> rows(kK * kK);
  for (int64_t i = 0; i < kK; ++i) rows[i * kK + i] = 1;
  InputMoments moments(input_plan());
  moments.add(kK, rows.data());
  std::vector<int32_t> order(kN);
  std::iota(order.rbegin(), order.rend(), 0);
  const auto gptq = dequantized(quantize_linear_gptq(linear_, plan_, order, mx::ScaleRule::kEven,
                                                     GptqFactor(moments, plan_)));
  const std::vector<float> w = permuted_weight(linear_, plan_, order);
  for (int64_t begin = 0; begin < kN * kK; begin += 32) {
    const mx::Format format = format_at(plan_, begin % kK);
    float amax = 0;
    for (int64_t i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(w[begin + i]));
    const int scale = mx::encode_scale(mx::ScaleRule::kEven, format, amax);
    double best = std::numeric_limits<double>::infinity();
    std::vector<float> expected;
    for (int candidate : {scale, scale - 1, scale + 1}) {
      std::vector<float> values;
      double cost = 0;
      for (int64_t i = 0; i < 32; ++i) {
        const uint8_t code = mx::encode(format, w[begin + i], candidate - mx::kScaleBias);
        values.push_back(mx::dequantize(format, code, static_cast<uint8_t>(candidate)));
        cost += std::pow(w[begin + i] - values.back(), 2.0);
      }
      if (cost >= best) continue;
      best = cost;
      expected = values;
    }
    const std::vector<float> found(gptq.begin() + begin, gptq.begin() + begin + 32);
    ASSERT_EQ(found, expected) << "at " << begin;
  }
}

TEST_F(Gptq, DampsDeadAndDependentChannels) {
  std::vector<float> rows = correlated_rows(8);  // rank 8 at most
  for (int64_t row = 0; row < 8; ++row) {
    for (int64_t j = 0; j < 50; ++j) rows[row * kK + j] = 0;
    for (int64_t j = 50; j < 60; ++j) rows[row * kK + j] = 1e15f;
  }
  InputMoments moments(input_plan());
  moments.add(8, rows.data());
  const auto w = dequantized(
      quantize_linear_gptq(linear_, plan_, {}, mx::ScaleRule::kEven, GptqFactor(moments, plan_)));
  for (float value : w) ASSERT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace micromix
