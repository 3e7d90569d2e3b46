// Outputs of products on a GPU against the oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <cuda_bf16.h>

#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/reference/oracle.h"
#include "tests/kernels/random_linear.h"
#include "tests/testing.h"

namespace micromix::testing {

// So that an output nobody writes is NaN.
inline void poison(const kernels::cuda::DeviceArray<__nv_bfloat16>& y) {
  kernels::cuda::check(cudaMemset(y.data(), 0xFF, y.bytes()), "cudaMemset");
}

// Once all that the device was to do is done.
inline std::vector<float> floats_of(const kernels::cuda::DeviceArray<__nv_bfloat16>& y) {
  kernels::cuda::check(cudaDeviceSynchronize(), "multiply");
  std::vector<float> values;
  for (const __nv_bfloat16 value : y.to_host()) values.push_back(__bfloat162float(value));
  return values;
}

// Y [m, n] as floats, of which MULTIPLY(y) writes on the default stream; poisoned before.
template <typename Multiply>
std::vector<float> outputs_of(int64_t m, int64_t n, const Multiply& multiply) {
  const kernels::cuda::DeviceArray<__nv_bfloat16> y(m * n);
  poison(y);
  multiply(y.data());
  return floats_of(y);
}

// All outputs where they are few, else 64 rows, 64 columns and where tiles meet.
inline std::vector<std::pair<int64_t, int64_t>> outputs_to_check(Random& random, int64_t m,
                                                                 int64_t n) {
  constexpr int64_t kMostOutputs = 100'000, kSampled = 64, kTile = 32;
  std::vector<std::pair<int64_t, int64_t>> outputs;
  const auto add_row = [&](int64_t row) {
    for (int64_t column = 0; column < n; ++column) outputs.emplace_back(row, column);
  };
  if (m * n <= kMostOutputs) {
    for (int64_t row = 0; row < m; ++row) add_row(row);
    return outputs;
  }
  for (int64_t i = 0; i < std::min(kSampled, m); ++i) add_row(random() % m);
  for (int64_t i = 0; i < std::min(kSampled, n); ++i) {
    const int64_t column = random() % n;
    for (int64_t row = 0; row < m; ++row) outputs.emplace_back(row, column);
  }
  for (int64_t row = 0; row < m; row += kTile) {
    for (int64_t column = 0; column < n; column += kTile) {
      outputs.emplace_back(row, column);
      outputs.emplace_back(std::min(row + kTile, m) - 1, std::min(column + kTile, n) - 1);
    }
  }
  return outputs;
}

// Y [m, n] of WEIGHT and ROWS, within the bound for chains of ADDITIONS; none is NaN, which nobody
// wrote.
inline void expect_outputs_within_bound(Random& random, const kernels::MixedWeight& weight,
                                        const kernels::QuantizedRows& rows, int64_t additions,
                                        const std::vector<float>& y) {
  const auto outputs = outputs_to_check(random, rows.m, weight.n);
  const auto is_right = [&](int64_t row, int64_t column) {
    const kernels::OracleValue exact = kernels::oracle_output(weight, rows, row, column);
    return std::fabs(y[row * weight.n + column] - exact.value) <=
           kernels::error_bound(exact, additions);
  };
  int64_t wrong = 0;
#pragma omp parallel for schedule(dynamic, 64) reduction(+ : wrong)
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!is_right(outputs[i].first, outputs[i].second)) ++wrong;
  }
  EXPECT_EQ(wrong, 0) << "of " << outputs.size() << ", m " << rows.m << " n " << weight.n;
  EXPECT_EQ(std::ranges::count_if(y, [](float value) { return std::isnan(value); }), 0);
}

}  // namespace micromix::testing
