// The one interface between models and matrix kernels: prepare a weight once, turn rows into a
// linear's input (gathered and quantized, fused with what produces them), multiply.
//
// A mixed linear (DESIGN: "y[M,N] = sum over segments of X_s W_s^T, one FP32 accumulation, BF16
// out") reads an input that was rounded once to BF16, gathered by the plan's permutation and
// quantized per block. A dense linear (not quantized) reads the same rows as they are. Inputs
// shared by several linears are made once. Hidden states and results are FP32 buffers; a mixed
// linear's results are BF16 values in them. Attention is here too, because a backend keeps keys and
// values in the form its products want.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "micromix/kernels/attention.h"
#include "micromix/mx/format.h"
#include "micromix/mx/scale.h"

namespace micromix::kernels {

// A weight [n, k] as stored, row-major, at any address; the bytes must outlive whatever was
// prepared from them.
enum class DenseType : uint8_t { kBF16, kF16, kF32 };
struct DenseWeight {
  int64_t n = 0;
  int64_t k = 0;
  DenseType type = DenseType::kBF16;
  std::span<const std::byte> data;
  std::vector<float> bias;  // [n], or empty
};

// One segment of a mixed weight: CHANNELS consecutive permuted channels in one format.
struct WeightSegment {
  mx::Format format;
  int64_t channels;                 // a multiple of 32
  std::span<const uint8_t> codes;   // [n, channels * bits / 8], packed (mx/packing.h)
  std::span<const uint8_t> scales;  // [n, channels / 32], E8M0
};
struct MixedWeight {
  int64_t n = 0;
  int64_t k = 0;  // the sum of the segments' channels
  std::vector<WeightSegment> segments;
  std::vector<float> bias;  // [n], or empty
};

// How an input is quantized: the activation side of a plan.
struct InputPlan {
  struct Segment {
    mx::Format weight;                 // of the weights that it multiplies
    std::optional<mx::Format> format;  // none: BF16 activations (weight-only quantization)
    int64_t channels;                  // a multiple of 32
  };
  int64_t k = 0;
  std::vector<int32_t> permutation;  // [k], x'[j] = x[permutation[j]]; empty: identity
  std::vector<Segment> segments;     // empty: every reader is dense, nothing is quantized
  mx::ScaleRule scale_rule = mx::ScaleRule::kRceil;
  // Also keep the rows as they are, for Backend::rows() or a dense reader beside mixed ones. Always
  // so without segments.
  bool keep_rows = false;
};

// A weight made ready by a backend.
class Linear {
 public:
  virtual ~Linear() = default;
  virtual int64_t n() const = 0;
  virtual int64_t k() const = 0;
};

// Rows ready to be multiplied by every linear that reads them. Can be set again and again, and
// keeps its memory. For one thread at a time.
class Input {
 public:
  virtual ~Input() = default;
};

// Y [m, n] = the rows of an input times LINEAR.
struct Product {
  const Linear* linear;
  float* y;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::unique_ptr<Linear> prepare(const DenseWeight& weight) const = 0;
  virtual std::unique_ptr<Linear> prepare(const MixedWeight& weight) const = 0;

  virtual std::unique_ptr<Input> make_input() const = 0;
  // Rows X [m, plan.k] as they are. The plan must stay where it is while INPUT is used.
  virtual void set(Input& input, const InputPlan& plan, int64_t m, const float* x) const = 0;
  // RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + eps) * gain, per row.
  virtual void set_rmsnorm(Input& input, const InputPlan& plan, int64_t m, const float* x,
                           std::span<const float> gain, float eps) const = 0;
  // SwiGLU (Shazeer 2020): silu(gate) * up, elementwise.
  virtual void set_swiglu(Input& input, const InputPlan& plan, int64_t m, const float* gate,
                          const float* up) const = 0;
  // A new one, set.
  std::unique_ptr<Input> input(const InputPlan& plan, int64_t m, const float* x) const {
    auto made = make_input();
    set(*made, plan, m, x);
    return made;
  }
  std::unique_ptr<Input> input(InputPlan&& plan, int64_t m, const float* x) const = delete;

  // The rows [m, k] before rounding, gathering and quantizing, for calibration. The input's plan
  // must keep them.
  virtual std::span<const float> rows(const Input& input) const = 0;

  // All products of one input at once. A mixed linear needs an input made by a plan with its
  // segments.
  virtual void multiply(std::span<const Product> products, const Input& input) const = 0;
  void multiply(const Linear& linear, const Input& input, float* y) const {
    const Product product{&linear, y};
    multiply({&product, 1}, input);
  }

  virtual std::unique_ptr<KeyValues> make_key_values(const AttentionShape& shape,
                                                     int64_t capacity) const = 0;
  // Causal attention: OUT [m, heads * head_dim] = softmax(Q K^T / sqrt(head_dim)) V for the last M
  // positions of CACHE, which holds their keys and values already. Q is [m, heads * head_dim].
  virtual void attend(const KeyValues& cache, int64_t m, const float* q, float* out) const = 0;
};

// The backend every other one is held against: FP32, threaded with OpenMP, any CPU.
const Backend& reference_backend();

}  // namespace micromix::kernels
