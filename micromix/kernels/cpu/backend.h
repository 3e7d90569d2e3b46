// The fast backend for CPUs: mixed linears on weights that stay packed, dense ones in BF16.
#pragma once

#include <cstdint>
#include <memory>

#include "micromix/kernels/linear.h"
#include "micromix/kernels/reference/oracle.h"

namespace micromix::kernels {

namespace cpu {
struct Kernels;
}

// On the instruction set that cpu::chosen_kernels() names. Throws Error where MICROMIX_CPU names
// none that this machine has.
const Backend& cpu_backend();

// The same on one instruction set, for tests.
std::unique_ptr<Backend> make_cpu_backend(const cpu::Kernels& kernels);

// What row ROW of an input of such a backend holds, for tests.
QuantizedRows cpu_quantized_row(const Input& input, int64_t row);

// FP32 additions in the longest chain behind one output of a mixed linear: a wide product adds its
// K products one by one, in chains that are added up or block by block, and the bias comes last.
// Portable kernels round each product too, but add 32 of them up before they join the sum: 32 + K /
// 32 additions, a product's rounding and the bias.
constexpr int64_t cpu_additions(int64_t k) {
  return k + 3;
}

}  // namespace micromix::kernels
