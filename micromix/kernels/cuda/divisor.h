// Division by numbers that the host knows, without the some forty dependent instructions that it is
// otherwise: at a kernel's start all of its threads wait for them.
#pragma once

#include <bit>
#include <cstdint>

#include "micromix/kernels/cuda/host_device.h"

namespace micromix::kernels::cuda {

struct Divisor {
  int32_t value = 1;
  uint32_t multiplier = uint32_t{1} << 31;
  int32_t shift = 31;

  Divisor() = default;
  // VALUE is positive. With s the bits of VALUE - 1, the multiplier is 2^(31 + s) / VALUE, rounded
  // up by less than VALUE of its numerator's units, so by less than 1 / VALUE of a quotient for
  // dividends below 2^31.
  explicit Divisor(int32_t divisor)
      : value(divisor), shift(31 + std::bit_width(static_cast<uint32_t>(divisor - 1))) {
    multiplier = static_cast<uint32_t>(((uint64_t{1} << shift) + divisor - 1) / divisor);
  }
};
// DIVIDEND is not negative.
MICROMIX_HOST_DEVICE inline int32_t operator/(int32_t dividend, const Divisor& by) {
  return static_cast<int32_t>(static_cast<uint64_t>(dividend) * by.multiplier >> by.shift);
}

}  // namespace micromix::kernels::cuda
