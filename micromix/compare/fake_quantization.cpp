#include "micromix/compare/fake_quantization.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <vector>

#include "micromix/kernels/host.h"
#include "micromix/kernels/reference/dense.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"

namespace micromix {
namespace {

constexpr std::array kBaselines = {Baseline::kNvfp4, Baseline::kInt4, Baseline::kInt8};

float largest_magnitude(std::span<const float> x) {
  float largest = 0;
  for (float value : x) largest = std::max(largest, std::fabs(value));
  return largest;
}

float round_to(mx::Format format, float value) {
  return mx::decode(format, mx::encode(format, value));
}

// NVIDIA's recipe: the tensor's scale places its largest block scale at E4M3's largest value.
void round_nvfp4(std::span<float> block, float tensor_scale) {
  const float largest = mx::traits(mx::Format::kE2M1).largest;
  const float scale =
      round_to(mx::Format::kE4M3, largest_magnitude(block) / largest / tensor_scale) * tensor_scale;
  for (float& value : block) {
    value = scale > 0 ? round_to(mx::Format::kE2M1, value / scale) * scale : 0.0f;
  }
}

void round_integer(std::span<float> block, float largest, float scale) {
  for (float& value : block) {
    value = scale > 0 ? std::clamp(std::nearbyint(value / scale), -largest, largest) * scale : 0.0f;
  }
}

void round_block(Baseline baseline, std::span<float> block, float tensor_scale) {
  switch (baseline) {
    case Baseline::kNvfp4:
      round_nvfp4(block, tensor_scale);
      break;
    case Baseline::kInt4:
      round_integer(block, 7, mx::round_to_bfloat16(largest_magnitude(block) / 7));
      break;
    case Baseline::kInt8:
      round_integer(block, 127, largest_magnitude(block) / 127);
      break;
  }
}

int64_t block_size(Baseline baseline, int64_t k) {
  switch (baseline) {
    case Baseline::kNvfp4:
      return 16;
    case Baseline::kInt4:
      return 128;
    case Baseline::kInt8:
      break;
  }
  return k;
}

struct FakeLinear final : kernels::Linear {
  int64_t n() const override { return linear->n(); }
  int64_t k() const override { return linear->k(); }

  std::vector<float> weight;
  std::unique_ptr<kernels::Linear> linear;  // a view of weight
};

class FakeQuantizationBackend final : public kernels::HostBackend {
 public:
  FakeQuantizationBackend(Baseline baseline, const kernels::Backend& backend)
      : baseline_(baseline), backend_(backend) {}

  using HostBackend::prepare;
  std::unique_ptr<kernels::Linear> prepare(const kernels::DenseWeight& weight) const override {
    auto fake = std::make_unique<FakeLinear>();
    fake->weight.resize(weight.n * weight.k);
    for (int64_t row = 0; row < weight.n; ++row) {
      kernels::decode_dense(weight, row, 0, weight.k, fake->weight.data() + row * weight.k);
    }
    fake_quantize(baseline_, weight.n, weight.k, fake->weight.data());
    fake->linear =
        backend_.prepare(kernels::DenseWeight{weight.n, weight.k, kernels::DenseType::kF32,
                                              std::as_bytes(std::span(fake->weight)), weight.bias});
    return fake;
  }
  std::unique_ptr<kernels::Linear> prepare(const kernels::MixedWeight&,
                                           const kernels::InputPlan&) const override {
    assert(false);  // baselines start from the BF16 model
    return nullptr;
  }

  std::unique_ptr<kernels::Input> make_input() const override { return backend_.make_input(); }
  void set(kernels::Input& input, const kernels::Plan& plan,
           const kernels::Buffer& x) const override {
    backend_.set(input, plan, x);
    quantize(input, plan, x.rows());
  }
  void set_rmsnorm(kernels::Input& input, const kernels::Plan& plan, const kernels::Rows& hidden,
                   const kernels::Buffer* addend, const kernels::Norm& norm) const override {
    backend_.set_rmsnorm(input, plan, hidden, addend, norm);
    quantize(input, plan, hidden.count);
  }
  void set_swiglu(kernels::Input& input, const kernels::Plan& plan, const kernels::Buffer& gate,
                  const kernels::Buffer& up) const override {
    backend_.set_swiglu(input, plan, gate, up);
    quantize(input, plan, gate.rows());
  }

  std::span<const float> rows(const kernels::Input& input) const override {
    return backend_.rows(input);
  }

  void multiply(std::span<const kernels::Product> products,
                const kernels::Input& input) const override {
    for (const auto& [linear, y] : products) {
      const kernels::Product product{static_cast<const FakeLinear&>(*linear).linear.get(), y};
      backend_.multiply({&product, 1}, input);
      float* const out = kernels::values(*y);
      for (int64_t i = 0; i < y->rows() * y->width(); ++i) out[i] = mx::round_to_bfloat16(out[i]);
    }
  }

  std::unique_ptr<kernels::KeyValues> make_key_values(const kernels::AttentionShape& shape,
                                                      int64_t capacity) const override {
    return backend_.make_key_values(shape, capacity);
  }
  void attend(const kernels::KeyValues& cache, const kernels::Buffer& q,
              kernels::Buffer& out) const override {
    backend_.attend(cache, q, out);
  }

 private:
  // Rounds the rows that INPUT was set to.
  void quantize(kernels::Input& input, const kernels::Plan& plan, int64_t m) const {
    const int64_t k = plan.input().k;
    std::vector<float> rows;
    for (float value : backend_.rows(input)) rows.push_back(mx::round_to_bfloat16(value));
    fake_quantize(baseline_, m, k, rows.data());
    backend_.set(input, plan, kernels::HostBuffer(rows.data(), m, k));
  }

  Baseline baseline_;
  const kernels::Backend& backend_;
};

}  // namespace

std::string_view name(Baseline baseline) {
  switch (baseline) {
    case Baseline::kNvfp4:
      return "nvfp4";
    case Baseline::kInt4:
      return "int4";
    case Baseline::kInt8:
      return "int8";
  }
  return {};
}

std::optional<Baseline> parse_baseline(std::string_view text) {
  for (Baseline baseline : kBaselines) {
    if (name(baseline) == text) return baseline;
  }
  return std::nullopt;
}

double bits_per_value(Baseline baseline) {
  switch (baseline) {
    case Baseline::kNvfp4:
      return 4 + 8.0 / 16;
    case Baseline::kInt4:
      return 4 + 16.0 / 128;
    case Baseline::kInt8:
      break;
  }
  return 8;
}

void fake_quantize(Baseline baseline, int64_t m, int64_t k, float* x) {
  const float largest = largest_magnitude({x, static_cast<size_t>(m * k)});
  const float tensor_scale =
      largest / mx::traits(mx::Format::kE2M1).largest / mx::traits(mx::Format::kE4M3).largest;
  if (largest == 0) return;
  const int64_t block = block_size(baseline, k);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t begin = 0; begin < k; begin += block) {
      const size_t size = static_cast<size_t>(std::min(block, k - begin));
      round_block(baseline, {x + row * k + begin, size}, tensor_scale);
    }
  }
}

std::unique_ptr<kernels::Backend> fake_quantization_backend(Baseline baseline,
                                                            const kernels::Backend& backend) {
  return std::make_unique<FakeQuantizationBackend>(baseline, backend);
}

}  // namespace micromix
