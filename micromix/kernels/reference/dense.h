// Rows of a dense weight, whatever its type.
#pragma once

#include <cstdint>

#include "micromix/kernels/linear.h"

namespace micromix::kernels {

// out[i] = WEIGHT[row, column + i] for i < COUNT.
void decode_dense(const DenseWeight& weight, int64_t row, int64_t column, int64_t count,
                  float* out);

}  // namespace micromix::kernels
