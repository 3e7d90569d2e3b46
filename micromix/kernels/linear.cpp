#include "micromix/kernels/linear.h"

namespace micromix::kernels {

std::unique_ptr<Buffer> Backend::buffer(BufferType type, int64_t m, int64_t width,
                                        const float* values) const {
  auto made = make_buffer(type);
  made->resize(m, width);
  write(*made, values);
  return made;
}

void Backend::set(Input& input, InputPlan plan, int64_t m, const float* x) const {
  input.plan_ = prepare(std::move(plan));
  set(input, *input.plan_, *buffer(BufferType::kOutput, m, input.plan_->input().k, x));
}

std::unique_ptr<Input> Backend::input(InputPlan plan, int64_t m, const float* x) const {
  auto made = make_input();
  set(*made, std::move(plan), m, x);
  return made;
}

void Backend::multiply(const Linear& linear, const Input& input, float* y) const {
  const auto made = make_buffer(BufferType::kOutput);
  const Product product{&linear, made.get()};
  multiply({&product, 1}, input);
  read(*made, y);
}

}  // namespace micromix::kernels
