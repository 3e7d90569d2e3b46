// The one interface between models and backends: prepare a weight once, turn rows into a linear's
// input (gathered and quantized, fused with what produces them), multiply.
//
// A mixed linear (DESIGN: "y[M,N] = sum over segments of X_s W_s^T, one FP32 accumulation, BF16
// out") reads an input that was rounded once to BF16, gathered by the plan's permutation and
// quantized per block. A dense linear (not quantized) reads the same rows as they are. Inputs
// shared by several linears are made once.
//
// Rows stay where a backend computes, in buffers that only it can read: whole decoder layers run
// without the host seeing a number. Attention, with the keys and values of earlier positions, is
// here for the same reason.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "micromix/kernels/attention.h"
#include "micromix/kernels/buffer.h"
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

// A plan made ready by a backend.
class Plan {
 public:
  explicit Plan(InputPlan input) : input_(std::move(input)) {}
  virtual ~Plan() = default;
  const InputPlan& input() const { return input_; }

 private:
  InputPlan input_;
};

// RMSNorm (Zhang and Sennrich 2019), made ready by a backend: x / sqrt(mean(x^2) + eps) * gain, per
// row.
class Norm {
 public:
  Norm(std::vector<float> gain, double eps) : gain_(std::move(gain)), eps_(eps) {}
  virtual ~Norm() = default;
  const std::vector<float>& gain() const { return gain_; }
  double eps() const { return eps_; }

 private:
  std::vector<float> gain_;
  double eps_;
};

// Rows ready to be multiplied by every linear that reads them. Can be set again and again, and
// keeps its memory. For one thread at a time.
class Input {
 public:
  virtual ~Input() = default;

 private:
  friend class Backend;
  std::unique_ptr<Plan> plan_;  // where Backend prepared one on the way
};

// Y [m, n] = the rows of an input times LINEAR. A mixed linear gives BF16 values, whatever Y's
// type.
struct Product {
  const Linear* linear;
  Buffer* y;
};

// Buffers, inputs, plans, norms and caches that are passed to a backend are its own; results are
// resized. X, Q, K and so on are of BufferType::kOutput, hidden states and angles of kFloat.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::unique_ptr<Linear> prepare(const DenseWeight& weight) const = 0;
  // For inputs of PLAN: what they are quantized to may decide how the weight is kept.
  virtual std::unique_ptr<Linear> prepare(const MixedWeight& weight,
                                          const InputPlan& plan) const = 0;
  virtual std::unique_ptr<Plan> prepare(InputPlan plan) const = 0;
  virtual std::unique_ptr<Norm> prepare_norm(std::vector<float> gain, double eps) const = 0;

  virtual std::unique_ptr<Buffer> make_buffer(BufferType type) const = 0;
  // Copies VALUES [count, width] into ROWS, and ROWS to OUT.
  virtual void write(const Rows& rows, const float* values) const = 0;
  virtual void read(const Rows& rows, float* out) const = 0;

  virtual std::unique_ptr<Input> make_input() const = 0;
  // Rows X [m, k] as they are. The plan must stay where it is while INPUT is used.
  virtual void set(Input& input, const Plan& plan, const Buffer& x) const = 0;
  // HIDDEN += ADDEND [count, k], unless that is null; then the norm of HIDDEN.
  virtual void set_rmsnorm(Input& input, const Plan& plan, const Rows& hidden, const Buffer* addend,
                           const Norm& norm) const = 0;
  // SwiGLU (Shazeer 2020): silu(gate) * up, elementwise.
  virtual void set_swiglu(Input& input, const Plan& plan, const Buffer& gate,
                          const Buffer& up) const = 0;

  // The rows [m, k] before rounding, gathering and quantizing, for calibration. The input's plan
  // must keep them. Throws Error where the backend is not on the host.
  virtual std::span<const float> rows(const Input& input) const = 0;

  // All products of one input at once. A mixed linear needs an input made by a plan with its
  // segments.
  virtual void multiply(std::span<const Product> products, const Input& input) const = 0;

  // HIDDEN += ADDEND.
  virtual void add(const Rows& hidden, const Buffer& addend) const = 0;
  // Normalizes each head's vector of X [m, heads * head_dim], unless NORM is null, and rotates it
  // in the half-split form of Hugging Face's Llama (Su et al. 2021), in place. ANGLES [m, head_dim]
  // are head_dim / 2 cosines and as many sines.
  virtual void place_heads(Buffer& x, const Norm* norm, const Buffer& angles) const = 0;

  virtual std::unique_ptr<KeyValues> make_key_values(const AttentionShape& shape,
                                                     int64_t capacity) const = 0;
  // Causal attention: OUT [m, heads * head_dim] = softmax(Q K^T / sqrt(head_dim)) V for the last M
  // positions of CACHE, which holds their keys and values already. Q is [m, heads * head_dim].
  virtual void attend(const KeyValues& cache, const Buffer& q, Buffer& out) const = 0;

  // The same on numbers of the host, for what need not be fast.
  std::unique_ptr<Buffer> buffer(BufferType type, int64_t m, int64_t width,
                                 const float* values) const;
  void set(Input& input, InputPlan plan, int64_t m, const float* x) const;
  std::unique_ptr<Input> input(InputPlan plan, int64_t m, const float* x) const;
  void multiply(const Linear& linear, const Input& input, float* y) const;
};

// The backend every other one is held against: FP32, threaded with OpenMP, any CPU.
const Backend& reference_backend();

}  // namespace micromix::kernels
