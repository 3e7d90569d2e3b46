#include "micromix/kernels/cuda/backend.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include <fmt/ranges.h>

#include "micromix/base/error.h"
#include "micromix/kernels/cuda/attention.h"
#include "micromix/kernels/cuda/block_scaled/product.h"
#include "micromix/kernels/cuda/code_rows.h"
#include "micromix/kernels/cuda/dense.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/device_plan.h"
#include "micromix/kernels/cuda/devices.h"
#include "micromix/kernels/cuda/exact_rows.h"
#include "micromix/kernels/cuda/product.h"
#include "micromix/kernels/cuda/quantize.h"
#include "micromix/kernels/cuda/rows.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::kernels {
namespace {

using cuda::DenseLinear;
using cuda::DeviceArray;

class CudaBuffer final : public Buffer {
 public:
  explicit CudaBuffer(BufferType type) : type_(type) {}

  BufferType type() const { return type_; }
  float* floats() {
    assert(type_ == BufferType::kFloat);
    return reinterpret_cast<float*>(memory_.data());
  }
  __nv_bfloat16* outputs() {
    assert(type_ == BufferType::kOutput);
    return reinterpret_cast<__nv_bfloat16*>(memory_.data());
  }

 private:
  void reserve(int64_t count) override {
    memory_.resize(count * (type_ == BufferType::kFloat ? sizeof(float) : sizeof(__nv_bfloat16)));
  }

  BufferType type_;
  DeviceArray<std::byte> memory_;
};

CudaBuffer& of_cuda(Buffer& buffer) {
  return static_cast<CudaBuffer&>(buffer);
}
const __nv_bfloat16* outputs(const Buffer& buffer) {
  return of_cuda(const_cast<Buffer&>(buffer)).outputs();
}
float* floats(const Rows& rows) {
  return of_cuda(*rows.buffer).floats() + rows.first * rows.buffer->width();
}

// Whether rows of PLAN are multiplied as codes.
bool takes_codes(const InputPlan& plan, CudaProducts products) {
  return products == CudaProducts::kBlockScaled && !plan.segments.empty() &&
         std::all_of(plan.segments.begin(), plan.segments.end(),
                     [](const InputPlan::Segment& segment) { return segment.format.has_value(); });
}

struct CudaPlan final : Plan {
  CudaPlan(InputPlan plan, CudaProducts products)
      : Plan(std::move(plan)), device(input()), codes(takes_codes(input(), products)) {}

  cuda::DevicePlan device;
  bool codes;
};

struct CudaNorm final : Norm {
  CudaNorm(std::vector<float> values, double eps)
      : Norm(std::move(values), eps), device(std::span<const float>(gain())) {}

  DeviceArray<float> device;  // the gain
};

template <typename Weight>
struct MixedLinear final : Linear {
  MixedLinear(const MixedWeight& of, cudaStream_t stream) : weight(of, stream) {}
  int64_t n() const override { return weight.n(); }
  int64_t k() const override { return weight.k(); }

  Weight weight;
};
using ExactLinear = MixedLinear<cuda::PackedWeight>;
using BlockScaledLinear = MixedLinear<cuda::block_scaled::Weight>;

struct CudaInput final : Input {
  int64_t m = 0;
  // Makes room for M rows of PLAN and says where a quantizer puts them.
  cuda::QuantizedOutputs reset(const CudaPlan& of, int64_t rows_m) {
    m = rows_m;
    const InputPlan& plan = of.input();
    const cuda::PlanView& view = of.device.view();
    cuda::QuantizedOutputs outputs;
    if (of.codes) {
      outputs.codes = &codes.resize(view, m);
    } else if (!plan.segments.empty()) {
      outputs.exact = &exact.resize(view, m);
    }
    if (plan.segments.empty() || plan.keep_rows) outputs.rows = rows.resize(m * plan.k);
    return outputs;
  }

  cuda::CodeRowsMemory codes;       // where they are multiplied
  cuda::ExactRowsMemory exact;      // where the plan quantizes otherwise
  DeviceArray<__nv_bfloat16> rows;  // [m, k] rounded, where the plan keeps them
};

class CudaKeyValues final : public KeyValues {
 public:
  CudaKeyValues(const AttentionShape& shape, int64_t capacity, cudaStream_t stream)
      : KeyValues(shape, capacity),
        stream_(stream),
        keys_(shape.kv_heads * capacity * cuda::padded_dim(shape.head_dim)),
        values_(keys_.size()) {}

  cuda::CacheView view() const {
    return {shape(), capacity(), length(), keys_.data(), values_.data()};
  }

 private:
  void store(const Buffer& keys, const Buffer& values) override {
    cuda::store_positions(shape(), capacity(), length(), keys.rows(), outputs(keys),
                          outputs(values), {keys_.data(), values_.data()}, stream_);
  }

  cudaStream_t stream_;
  DeviceArray<__nv_bfloat16> keys_, values_;  // cuda::CacheView
};

// The GPU that this process works on, once it does: what is known of kernels and limits is of it.
std::optional<int>& gpu_in_use() {
  static std::optional<int> index;
  return index;
}

void expect_a_gpu() {
  if (const std::string why = cuda::why_no_gpus(); !why.empty()) {
    throw Error("CUDA: no GPU: " + why);
  }
}

// Throws Error where the current device cannot run this.
void expect_usable_device() {
  if (gpu_in_use()) return;
  expect_a_gpu();
  int device = 0;
  cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  const std::string problem = cuda::capability_problem(properties.major, properties.minor);
  if (!problem.empty()) throw Error(fmt::format("CUDA: {}: {}", properties.name, problem));
  gpu_in_use() = device;
}

class CudaBackend final : public Backend {
 public:
  using Backend::multiply;
  using Backend::set;

  explicit CudaBackend(CudaProducts products) : products_(products) {
    expect_usable_device();
    instructions_ = cuda::block_scaled::best_instructions();
    // Ordered with the copies of DeviceArray, which are on the default stream.
    cuda::check(cudaStreamCreate(&stream_), "cudaStreamCreate");
    blas_ = std::make_unique<cuda::Blas>();
  }

  std::unique_ptr<Linear> prepare(const DenseWeight& weight) const override {
    return std::make_unique<DenseLinear>(weight);
  }
  std::unique_ptr<Linear> prepare(const MixedWeight& weight, const InputPlan& plan) const override {
    if (takes_codes(plan, products_)) return std::make_unique<BlockScaledLinear>(weight, stream_);
    return std::make_unique<ExactLinear>(weight, stream_);
  }
  std::unique_ptr<Plan> prepare(InputPlan plan) const override {
    return std::make_unique<CudaPlan>(std::move(plan), products_);
  }
  std::unique_ptr<Norm> prepare_norm(std::vector<float> gain, double eps) const override {
    return std::make_unique<CudaNorm>(std::move(gain), eps);
  }

  std::unique_ptr<Buffer> make_buffer(BufferType type) const override {
    return std::make_unique<CudaBuffer>(type);
  }

  void write(const Rows& rows, const float* values) const override {
    const int64_t size = rows.count * rows.buffer->width();
    CudaBuffer& buffer = of_cuda(*rows.buffer);
    if (buffer.type() == BufferType::kFloat) {
      copy(floats(rows), values, size * sizeof(float), cudaMemcpyHostToDevice);
      return;
    }
    std::vector<mx::BFloat16> rounded(size);
    for (int64_t i = 0; i < size; ++i) rounded[i] = mx::to_bfloat16(values[i]);
    copy(buffer.outputs() + rows.first * buffer.width(), rounded.data(),
         size * sizeof(mx::BFloat16), cudaMemcpyHostToDevice);
  }

  void read(const Rows& rows, float* out) const override {
    const int64_t size = rows.count * rows.buffer->width();
    CudaBuffer& buffer = of_cuda(*rows.buffer);
    if (buffer.type() == BufferType::kFloat) {
      copy(out, floats(rows), size * sizeof(float), cudaMemcpyDeviceToHost);
      wait();
      return;
    }
    std::vector<mx::BFloat16> values(size);
    copy(values.data(), buffer.outputs() + rows.first * buffer.width(), size * sizeof(mx::BFloat16),
         cudaMemcpyDeviceToHost);
    wait();
    for (int64_t i = 0; i < size; ++i) out[i] = mx::to_float(values[i]);
  }

  std::unique_ptr<Input> make_input() const override { return std::make_unique<CudaInput>(); }

  void set(Input& input, const Plan& plan, const Buffer& x) const override {
    quantize(input, plan, x.rows(), [&] { return cuda::PlainRows{outputs(x)}; });
  }

  void set_rmsnorm(Input& input, const Plan& plan, const Rows& hidden, const Buffer* addend,
                   const Norm& norm) const override {
    quantize(input, plan, hidden.count, [&] {
      return cuda::RmsNormRows{floats(hidden), addend == nullptr ? nullptr : outputs(*addend),
                               static_cast<const CudaNorm&>(norm).device.data(),
                               static_cast<float>(norm.eps())};
    });
  }

  void set_swiglu(Input& input, const Plan& plan, const Buffer& gate,
                  const Buffer& up) const override {
    quantize(input, plan, gate.rows(), [&] {
      return cuda::SwigluRows{outputs(gate), outputs(up)};
    });
  }

  std::span<const float> rows(const Input&) const override {
    throw Error("the CUDA backend does not show a linear's input: calibrate on the CPU");
  }

  void multiply(std::span<const Product> products, const Input& input) const override {
    const auto& rows = static_cast<const CudaInput&>(input);
    for (const auto& [linear, y] : products) {
      y->resize(rows.m, linear->n());
      if (rows.m == 0) continue;
      if (const auto* dense = dynamic_cast<const DenseLinear*>(linear)) {
        multiply(*dense, rows, of_cuda(*y));
      } else {
        multiply_mixed(*linear, rows, of_cuda(*y));
      }
    }
  }

  void add(const Rows& hidden, const Buffer& addend) const override {
    cuda::add(hidden.count * hidden.buffer->width(), floats(hidden), outputs(addend), stream_);
  }

  void place_heads(Buffer& x, const Norm* norm, const Buffer& angles) const override {
    const int64_t head_dim = angles.width();
    const auto* const of_norm = static_cast<const CudaNorm*>(norm);
    cuda::place_heads(x.rows(), x.width() / head_dim, head_dim, of_cuda(x).outputs(),
                      norm == nullptr ? nullptr : of_norm->device.data(),
                      norm == nullptr ? 0 : static_cast<float>(norm->eps()),
                      of_cuda(const_cast<Buffer&>(angles)).floats(), stream_);
  }

  std::unique_ptr<KeyValues> make_key_values(const AttentionShape& shape,
                                             int64_t capacity) const override {
    if (shape.head_dim > cuda::kMostHeadDim) {
      throw Error(fmt::format("head_dim: found {}, expected {} at most on CUDA", shape.head_dim,
                              cuda::kMostHeadDim));
    }
    return std::make_unique<CudaKeyValues>(shape, capacity, stream_);
  }

  void attend(const KeyValues& cache, const Buffer& q, Buffer& out) const override {
    out.resize(q.rows(), q.width());
    cuda::attend(static_cast<const CudaKeyValues&>(cache).view(), q.rows(), outputs(q),
                 of_cuda(out).outputs(), attention_workspace_, stream_);
  }

 private:
  void copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) const {
    if (bytes == 0) return;
    // Of host memory that is not pinned: it may change as soon as this returns.
    cuda::check(cudaMemcpyAsync(to, from, bytes, kind, stream_), "copy");
  }
  void wait() const { cuda::check(cudaStreamSynchronize(stream_), "wait"); }

  // SOURCE() gives the rows that a quantizer reads.
  template <typename Source>
  void quantize(Input& input, const Plan& plan, int64_t m, const Source& source) const {
    const auto& of = static_cast<const CudaPlan&>(plan);
    const cuda::QuantizedOutputs made = static_cast<CudaInput&>(input).reset(of, m);
    if (m > 0) cuda::quantize(of.device.view(), m, source(), made, stream_);
  }

  void multiply(const DenseLinear& linear, const CudaInput& input, CudaBuffer& y) const {
    assert(input.rows.size() == input.m * linear.k());
    if (y.type() == BufferType::kFloat) {
      linear.multiply(input.m, input.rows.data(), y.floats(), *blas_, stream_);
    } else {
      linear.multiply(input.m, input.rows.data(), y.outputs(), *blas_, stream_);
    }
  }

  void multiply_mixed(const Linear& linear, const CudaInput& input, CudaBuffer& y) const {
    const bool widens = y.type() == BufferType::kFloat;
    const int64_t size = y.rows() * y.width();
    __nv_bfloat16* const results = widens ? narrow_.resize(size) : y.outputs();
    if (const auto* scaled = dynamic_cast<const BlockScaledLinear*>(&linear)) {
      cuda::block_scaled::multiply(scaled->weight, input.codes.view(), results, stream_,
                                   instructions_);
    } else {
      cuda::multiply(static_cast<const ExactLinear&>(linear).weight, input.exact.view(), results,
                     product_workspace_, stream_, false, products_);
    }
    if (widens) cuda::widen(size, results, y.floats(), stream_);
  }

  CudaProducts products_;
  cuda::block_scaled::Instructions instructions_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<cuda::Blas> blas_;
  // What kernels need between their launches; they run one after another.
  mutable cuda::Workspace product_workspace_;
  mutable cuda::AttentionWorkspace attention_workspace_;
  mutable DeviceArray<__nv_bfloat16> narrow_;  // results that will be widened
};

CudaProducts choose_products() {
  const char* const wanted = std::getenv("MICROMIX_CUDA_PRODUCTS");
  if (wanted == nullptr) {
    return cuda::block_scaled::native_instructions_work() ? CudaProducts::kBlockScaled
                                                          : CudaProducts::kExact;
  }
  std::vector<std::string_view> names;
  for (CudaProducts product : kCudaProducts) {
    if (wanted == name(product)) return product;
    names.push_back(name(product));
  }
  throw Error(fmt::format("MICROMIX_CUDA_PRODUCTS: found '{}', expected one of: {}", wanted,
                          fmt::join(names, ", ")));
}

// Never destroyed: the driver may go first.
template <CudaProducts products>
const Backend& backend_of() {
  static const CudaBackend& backend = *new CudaBackend(products);
  return backend;
}

}  // namespace

void choose_gpu(int index) {
  expect_a_gpu();
  int count = 0;
  cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (index >= count) {
    throw Error(fmt::format("CUDA: found GPU {}, expected {} at most", index, count - 1));
  }
  if (gpu_in_use().value_or(index) != index) {
    throw Error(
        fmt::format("CUDA: found GPU {}, expected {}, which is in use", index, *gpu_in_use()));
  }
  cuda::check(cudaSetDevice(index), "cudaSetDevice");
}

const Backend& cuda_backend() {
  expect_usable_device();
  return cuda_backend(choose_products());
}

const Backend& cuda_backend(CudaProducts products) {
  switch (products) {
    case CudaProducts::kExact:
      return backend_of<CudaProducts::kExact>();
    case CudaProducts::kExactMmaSync:
      return backend_of<CudaProducts::kExactMmaSync>();
    default:
      return backend_of<CudaProducts::kBlockScaled>();
  }
}

}  // namespace micromix::kernels
