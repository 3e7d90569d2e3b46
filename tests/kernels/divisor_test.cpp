// Division by multiplication, as CUDA kernels find their tiles (kernels/cuda/divisor.h).
#include "micromix/kernels/cuda/divisor.h"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace micromix::kernels::cuda {
namespace {

constexpr int32_t kLargest = std::numeric_limits<int32_t>::max();

TEST(Divisor, DividesAsTheLanguageDoes) {
  std::vector<int32_t> divisors = {1, 2, 3, 5, 7, 641, kLargest - 1, kLargest};
  for (int shift = 2; shift < 31; ++shift) {
    for (int32_t near : {-1, 0, 1}) divisors.push_back((1 << shift) + near);
  }
  std::mt19937 random(1);
  for (int32_t divisor : divisors) {
    const Divisor by(divisor);
    std::vector<int32_t> dividends = {0, 1, divisor - 1, divisor, kLargest - 1, kLargest};
    for (int i = 0; i < 1000; ++i) {
      const auto any = static_cast<int32_t>(random() >> 1);
      // Quotients change here.
      const int32_t multiple = any / divisor * divisor;
      for (int32_t dividend : {any, multiple, std::max(multiple - 1, 0)}) {
        dividends.push_back(dividend);
      }
    }
    for (int32_t dividend : dividends) {
      ASSERT_EQ(dividend / by, dividend / divisor) << dividend << " by " << divisor;
    }
  }
}

}  // namespace
}  // namespace micromix::kernels::cuda
