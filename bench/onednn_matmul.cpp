#include "bench/onednn_matmul.h"

#include <algorithm>
#include <random>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "micromix/base/error.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::bench {
namespace {

using dnnl::memory;
using DataType = memory::data_type;

struct Types {
  DataType source, weight, destination;
};

Types types(OnednnType type) {
  switch (type) {
    case OnednnType::kBF16:
      return {DataType::bf16, DataType::bf16, DataType::bf16};
    case OnednnType::kU8S8:
      return {DataType::u8, DataType::s8, DataType::s32};
    case OnednnType::kF32:
      break;
  }
  return {DataType::f32, DataType::f32, DataType::f32};
}

void store(DataType type, int value, void* data, int64_t index) {
  switch (type) {
    case DataType::bf16:
      static_cast<mx::BFloat16*>(data)[index] = mx::to_bfloat16(static_cast<float>(value));
      break;
    case DataType::f32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
    default:
      static_cast<uint8_t*>(data)[index] = static_cast<uint8_t>(value);
  }
}

double load(DataType type, const void* data, int64_t index) {
  switch (type) {
    case DataType::bf16:
      return mx::to_float(static_cast<const mx::BFloat16*>(data)[index]);
    case DataType::f32:
      return static_cast<const float*>(data)[index];
    default:
      return static_cast<const int32_t*>(data)[index];
  }
}

class Matmul final : public OnednnMatmul {
 public:
  // Throws dnnl::error where there is no implementation at all.
  Matmul(OnednnType type, int64_t m, int64_t n, int64_t k)
      : name_(name(type)),
        types_(types(type)),
        m_(m),
        n_(n),
        k_(k),
        description_(make_description()),
        product_(description_) {}

  int64_t copies() const override { return static_cast<int64_t>(arguments_.size()); }
  std::string implementation() const override { return description_.impl_info_str(); }

  void multiply(int64_t copy) override {
    product_.execute(stream_, arguments_[copy]);
    stream_.wait();
  }

  // Integers whose sums are exact in FP32, and whose pairs vpmaddubsw (oneDNN on AVX2) does not
  // saturate.
  void fill(int64_t rotated_bytes) {
    std::mt19937 random(1);
    source_.resize(m_ * k_);
    for (uint8_t& value : source_) value = random() & 127;
    weight_.resize(n_ * k_);
    for (int8_t& value : weight_) value = static_cast<int8_t>(random());

    const memory source = stored(description_.src_desc(), types_.source, source_);
    memory plain = stored(plain_weight(), types_.weight, weight_);
    destination_ = memory(description_.dst_desc(), engine_);
    const auto bytes = static_cast<int64_t>(description_.weights_desc().get_size());
    const int64_t copies = std::max<int64_t>(1, (rotated_bytes + bytes - 1) / bytes);
    for (int64_t copy = 0; copy < copies; ++copy) {
      memory packed(description_.weights_desc(), engine_);
      dnnl::reorder(plain, packed).execute(stream_, plain, packed);
      stream_.wait();
      arguments_.push_back({{DNNL_ARG_SRC, source},
                            {DNNL_ARG_WEIGHTS, std::move(packed)},
                            {DNNL_ARG_DST, destination_}});
    }
  }

  void check() {
    constexpr int kOutputs = 64;
    std::mt19937_64 random(2);
    multiply(copies() - 1);
    for (int i = 0; i < kOutputs; ++i) {
      const auto row = static_cast<int64_t>(random() % m_);
      const auto column = static_cast<int64_t>(random() % n_);
      int64_t sum = 0;
      for (int64_t j = 0; j < k_; ++j) {
        sum += int64_t{source_[row * k_ + j]} * weight_[column * k_ + j];
      }
      const double found =
          load(types_.destination, destination_.get_data_handle(), row * n_ + column);
      const double expected = types_.destination == DataType::bf16
                                  ? mx::round_to_bfloat16(static_cast<float>(sum))
                                  : static_cast<double>(sum);
      if (found != expected) {
        throw_invalid(fmt::format("oneDNN {}, m {}, n {}, k {}", name_, m_, n_, k_),
                      fmt::format("[{}, {}]", row, column), fmt::to_string(found),
                      fmt::to_string(expected));
      }
    }
    source_ = {};
    weight_ = {};
  }

 private:
  // oneDNN's weight is [k, n]; ours, row-major [n, k], is its transpose.
  memory::desc plain_weight() const { return {{k_, n_}, types_.weight, memory::format_tag::ba}; }

  dnnl::matmul::primitive_desc make_description() const {
    using Tag = memory::format_tag;
    const memory::desc source({m_, k_}, types_.source, Tag::ab);
    const memory::desc weight({k_, n_}, types_.weight, Tag::any);
    const memory::desc destination({m_, n_}, types_.destination, Tag::ab);
    return {dnnl::matmul::desc(source, weight, destination), engine_};
  }

  template <typename T>
  memory stored(const memory::desc& description, DataType type, const std::vector<T>& values) {
    memory result(description, engine_);
    void* data = result.get_data_handle();
    for (size_t i = 0; i < values.size(); ++i) {
      store(type, values[i], data, static_cast<int64_t>(i));
    }
    return result;
  }

  std::string_view name_;
  Types types_;
  int64_t m_, n_, k_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul product_;
  memory destination_;
  std::vector<std::unordered_map<int, memory>> arguments_;  // one a copy of the weight
  std::vector<uint8_t> source_;                             // until checked
  std::vector<int8_t> weight_;
};

}  // namespace

std::string_view name(OnednnType type) {
  switch (type) {
    case OnednnType::kBF16:
      return "bf16";
    case OnednnType::kU8S8:
      return "u8s8";
    case OnednnType::kF32:
      return "f32";
  }
  return {};
}

std::unique_ptr<OnednnMatmul> OnednnMatmul::make(OnednnType type, int64_t m, int64_t n, int64_t k,
                                                 int64_t rotated_bytes) {
  std::unique_ptr<Matmul> result;
  try {
    result = std::make_unique<Matmul>(type, m, n, k);
  } catch (const dnnl::error& error) {
    if (error.status != dnnl_unimplemented) throw;
    return nullptr;
  }
  if (result->implementation().rfind("ref", 0) == 0) return nullptr;
  result->fill(rotated_bytes);
  result->check();
  return result;
}

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace micromix::bench
