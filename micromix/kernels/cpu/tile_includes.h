// Everything that the files of single instruction sets include. They turn their instructions on by
// pragma after it, so that inline functions of these headers, of which the linker keeps one copy
// for the whole program, run on every machine.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/cpu/panels.h"
#include "micromix/mx/element.h"
#include "micromix/mx/packing.h"
#include "micromix/mx/scale.h"

#if defined(__x86_64__)
// The vector variants of libmvec (4 ulp), without -ffast-math.
extern "C" __attribute__((simd("notinbranch"))) float expf(float) noexcept;
#endif

namespace micromix::kernels::cpu {

// The functions of a table, by the names every file gives them.
#define MICROMIX_CPU_KERNELS(instruction_set)                                               \
  {                                                                                         \
    .name = #instruction_set, .wide_bytes = kWideBytes, .expand_integer = expand_integer,   \
    .expand_wide = expand_wide, .expand_pairs = kWideBytes == 2 ? nullptr : expand_pairs,   \
    .expand_dense = expand_dense, .multiply_integer = multiply_integer,                     \
    .multiply_wide = multiply_wide, .multiply_packed_integer = kMultiplyPackedInteger,      \
    .multiply_packed_wide = kMultiplyPackedWide, .multiply_dense_row = kMultiplyDenseRow,   \
    .multiply_integer_any = multiply_integer_any_scale,                                     \
    .multiply_wide_any = multiply_wide_any_scale<kWideBytes>, .quantize_row = quantize_row, \
    .quantize_tile = kQuantizeTile, .store_rows = store_rows, .softmax_row = softmax_row,   \
    .rmsnorm_row = rmsnorm_row, .swiglu_row = swiglu_row                                    \
  }

}  // namespace micromix::kernels::cpu
