#include "micromix/kernels/host.h"

#include <algorithm>
#include <cmath>

namespace micromix::kernels {
namespace {

void normalize(const Norm& norm, int64_t head_dim, float* vector) {
  double squares = 0;
  for (int64_t i = 0; i < head_dim; ++i) squares += static_cast<double>(vector[i]) * vector[i];
  const double mean = squares / static_cast<double>(head_dim);
  const float factor = static_cast<float>(1.0 / std::sqrt(mean + norm.eps()));
  for (int64_t i = 0; i < head_dim; ++i) vector[i] = vector[i] * factor * norm.gain()[i];
}

void rotate(const float* cosines, const float* sines, int64_t half, float* first) {
  float* const second = first + half;
  for (int64_t i = 0; i < half; ++i) {
    const float rotated = first[i] * cosines[i] - second[i] * sines[i];
    second[i] = second[i] * cosines[i] + first[i] * sines[i];
    first[i] = rotated;
  }
}

}  // namespace

std::unique_ptr<Plan> HostBackend::prepare(InputPlan plan) const {
  return std::make_unique<Plan>(std::move(plan));
}

std::unique_ptr<Norm> HostBackend::prepare_norm(std::vector<float> gain, double eps) const {
  return std::make_unique<Norm>(std::move(gain), eps);
}

std::unique_ptr<Buffer> HostBackend::make_buffer(BufferType) const {
  return std::make_unique<HostBuffer>();
}

void HostBackend::write(const Rows& rows, const float* from) const {
  std::copy_n(from, rows.count * rows.buffer->width(), values(rows));
}

void HostBackend::read(const Rows& rows, float* out) const {
  std::copy_n(values(rows), rows.count * rows.buffer->width(), out);
}

void HostBackend::add(const Rows& hidden, const Buffer& addend) const {
  const int64_t size = hidden.count * hidden.buffer->width();
  float* const sum = values(hidden);
  const float* const term = values(addend);
#pragma omp parallel for schedule(static) if (hidden.count > 1)
  for (int64_t i = 0; i < size; ++i) sum[i] += term[i];
}

void HostBackend::place_heads(Buffer& x, const Norm* norm, const Buffer& angles) const {
  const int64_t head_dim = angles.width();
  const int64_t half = head_dim / 2;
#pragma omp parallel for schedule(static) if (x.rows() > 1)
  for (int64_t row = 0; row < x.rows(); ++row) {
    const float* const cosines = values(angles) + row * head_dim;
    float* const vectors = values(x) + row * x.width();
    for (int64_t at = 0; at < x.width(); at += head_dim) {
      if (norm != nullptr) normalize(*norm, head_dim, vectors + at);
      rotate(cosines, cosines + half, half, vectors + at);
    }
  }
}

}  // namespace micromix::kernels
