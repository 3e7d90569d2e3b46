#include "micromix/quantize/gptq.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include <cblas.h>

#include "micromix/base/error.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"

// LAPACK's Cholesky factorization; cblas.h declares the BLAS only.
extern "C" void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);

namespace micromix {
namespace {

constexpr int64_t kBlock = mx::kBlockSize;

// The factorization gets this much of each channel's own second moment on top; ten times more as
// long as it fails.
constexpr double kDamping = 0.01;

// The positions of PLAN's channels, widest format first, ascending within a format.
std::vector<int32_t> working_order(const Plan& plan) {
  std::vector<int32_t> order;
  int64_t end = plan.size();
  for (size_t f = plan.channels.size(); f-- > 0;) {
    const int64_t begin = end - plan.channels[f];
    for (int64_t j = begin; j < end; ++j) order.push_back(static_cast<int32_t>(j));
    end = begin;
  }
  return order;
}

double second_moment(const InputMoments& moments, int64_t i, int64_t j) {
  return moments.second()[std::min(i, j) * moments.k() + std::max(i, j)];
}

}  // namespace

GptqFactor::GptqFactor(const InputMoments& moments, const Plan& plan)
    : position_(working_order(plan)) {
  const int64_t k = moments.k();
  assert(plan.size() == k);
  std::vector<double> scale(k);  // to a unit diagonal: damping is relative to each channel
  for (int64_t t = 0; t < k; ++t) {
    const double diagonal = second_moment(moments, position_[t], position_[t]);
    if (!std::isfinite(diagonal)) throw Error("calibration activations too large for GPTQ");
    scale[t] = diagonal > 0 ? std::sqrt(diagonal) : 1.0;
  }
  std::vector<double> cholesky;  // column-major, lower
  const int size = static_cast<int>(k);
  int info = 1;
  for (double damping = kDamping; info != 0; damping *= 10) {
    cholesky.assign(k * k, 0.0);
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t t = 0; t < k; ++t) {
      for (int64_t s = t + 1; s < k; ++s) {
        cholesky[t * k + s] =
            second_moment(moments, position_[s], position_[t]) / (scale[s] * scale[t]);
      }
      cholesky[t * k + t] = 1.0 + damping;
    }
    dpotrf_("L", &size, cholesky.data(), &size, &info);
  }
  cost_.resize(k);
  for (int64_t t = 0; t < k; ++t) {
    const double diagonal = scale[t] * cholesky[t * k + t];
    cost_[t] = static_cast<float>(diagonal * diagonal);
  }
  feedback_.resize(k * k);
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < k; ++s) {
    for (int64_t t = 0; t < s; ++t) {
      feedback_[s * k + t] =
          static_cast<float>(scale[s] * cholesky[t * k + s] / (scale[t] * cholesky[t * k + t]));
    }
  }
}

namespace {

// Where a block of the plan lies.
struct BlockPlace {
  QuantizedLinear::Segment* segment;
  int64_t block;  // within the segment
};

BlockPlace place_of(QuantizedLinear& linear, int64_t position) {
  for (QuantizedLinear::Segment& segment : linear.segments) {
    if (position < segment.channels) return {&segment, position / kBlock};
    position -= segment.channels;
  }
  assert(false);
  return {};
}

// What the channels of one block share, whatever the row.
struct BlockFactor {
  const float* feedback;  // the factor's rows and columns of the block
  int64_t stride;
  const float* cost;  // [kBlock]
};

// One block of one row, rounded.
struct RoundedBlock {
  uint8_t scale;
  uint8_t codes[kBlock];
  float error[kBlock];  // the weights minus what they were rounded to
  float cost;           // in output error, once its feedback is spent
};

// Rounds the weights W with scale byte SCALE, last channel first. FED are the weights with the
// feedback of the blocks done before.
RoundedBlock round_block(mx::Format format, uint8_t scale, const float* w, const float* fed,
                         const BlockFactor& factor) {
  RoundedBlock block{scale, {}, {}, 0};
  float target[kBlock];
  std::copy_n(fed, kBlock, target);
  const float unit = mx::decode_scale(scale);
  const auto& table = mx::decode_table(format);
  for (int64_t t = kBlock; t-- > 0;) {
    block.codes[t] = mx::encode(format, target[t], scale - mx::kScaleBias);
    const float value = table[block.codes[t]] * unit;
    block.error[t] = w[t] - value;
    block.cost += factor.cost[t] * (target[t] - value) * (target[t] - value);
    for (int64_t s = 0; s < t; ++s) {
      target[s] += block.error[t] * factor.feedback[t * factor.stride + s];
    }
  }
  return block;
}

// The cheapest of RULE's scale and its two neighbours; RULE's where that is as good.
RoundedBlock round_block(mx::Format format, mx::ScaleRule rule, const float* w, const float* fed,
                         const BlockFactor& factor) {
  float amax = 0;
  for (int64_t i = 0; i < kBlock; ++i) amax = std::max(amax, std::fabs(fed[i]));
  const uint8_t scale = mx::encode_scale(rule, format, amax);
  RoundedBlock best = round_block(format, scale, w, fed, factor);
  for (int neighbour : {scale - 1, scale + 1}) {
    if (neighbour < 0 || neighbour >= mx::kScaleNan) continue;
    const RoundedBlock other = round_block(format, static_cast<uint8_t>(neighbour), w, fed, factor);
    if (other.cost < best.cost) best = other;
  }
  return best;
}

}  // namespace

QuantizedLinear quantize_linear_gptq(const LinearWeights& linear, const Plan& plan,
                                     std::span<const int32_t> row_order, mx::ScaleRule rule,
                                     const GptqFactor& factor) {
  const int64_t n = linear.n;
  const int64_t k = linear.k;
  assert(factor.k() == k);
  Plan working;
  working.channels = plan.channels;
  for (int32_t position : factor.position()) {
    working.permutation.push_back(plan.permutation.empty() ? position : plan.permutation[position]);
  }
  const std::vector<float> w = permuted_weight(linear, working, row_order);
  QuantizedLinear result = empty_quantized_linear(n, plan);
  std::vector<float> error(n * k);
  std::vector<float> fed(n * kBlock);
  for (int64_t begin = k - kBlock; begin >= 0; begin -= kBlock) {
    const int64_t end = begin + kBlock;
    for (int64_t row = 0; row < n; ++row) {
      std::copy_n(w.data() + row * k + begin, kBlock, fed.data() + row * kBlock);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(n), kBlock,
                static_cast<int>(k - end), 1.0f, error.data() + end, static_cast<int>(k),
                factor.feedback().data() + end * k + begin, static_cast<int>(k), 1.0f, fed.data(),
                kBlock);
    const BlockPlace place = place_of(result, factor.position()[begin]);
    const mx::Format format = place.segment->format;
    const int64_t blocks = place.segment->channels / kBlock;
    const int64_t bytes = mx::packed_bytes(format, kBlock);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < n; ++row) {
      const RoundedBlock block = round_block(
          format, rule, w.data() + row * k + begin, fed.data() + row * kBlock,
          {factor.feedback().data() + begin * k + begin, k, factor.cost().data() + begin});
      const int64_t at = row * blocks + place.block;
      place.segment->scales[at] = block.scale;
      std::copy_n(block.error, kBlock, error.data() + row * k + begin);
      mx::pack(format, block.codes, std::span(place.segment->codes).subspan(at * bytes, bytes));
    }
  }
  return result;
}

}  // namespace micromix
