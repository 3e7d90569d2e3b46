// What backends on the host share: buffers of FP32, and operations on them that are no product.
#pragma once

#include <cstdint>
#include <memory>

#include "micromix/kernels/huge_buffer.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels {

class HostBuffer final : public Buffer {
 public:
  HostBuffer() = default;
  // A view of VALUES [rows, width], which stays where they are.
  HostBuffer(float* values, int64_t rows, int64_t width)
      : values_(values), capacity_(rows * width) {
    resize(rows, width);
  }

  float* row(int64_t i) { return values_ + i * width(); }
  const float* row(int64_t i) const { return values_ + i * width(); }

 private:
  void reserve(int64_t count) override {
    if (count <= capacity_) return;
    own_.reserve(count * static_cast<int64_t>(sizeof(float)));
    values_ = own_.floats();
    capacity_ = count;
  }

  HugeBuffer own_;
  float* values_ = nullptr;
  int64_t capacity_ = 0;
};

inline float* values(Buffer& buffer) {
  return static_cast<HostBuffer&>(buffer).row(0);
}
inline const float* values(const Buffer& buffer) {
  return static_cast<const HostBuffer&>(buffer).row(0);
}
inline float* values(const Rows& rows) {
  return static_cast<HostBuffer&>(*rows.buffer).row(rows.first);
}

// Of such backends one may read what another has made, but for linears, inputs and caches.
class HostBackend : public Backend {
 public:
  using Backend::multiply;
  using Backend::prepare;
  using Backend::set;

  std::unique_ptr<Plan> prepare(InputPlan plan) const override;
  std::unique_ptr<Norm> prepare_norm(std::vector<float> gain, double eps) const override;
  std::unique_ptr<Buffer> make_buffer(BufferType type) const override;
  void write(const Rows& rows, const float* values) const override;
  void read(const Rows& rows, float* out) const override;
  void add(const Rows& hidden, const Buffer& addend) const override;
  void place_heads(Buffer& x, const Norm* norm, const Buffer& angles) const override;
};

}  // namespace micromix::kernels
