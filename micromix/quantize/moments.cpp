#include "micromix/quantize/moments.h"

#include <cassert>

#include <cblas.h>

#include "micromix/kernels/reference/oracle.h"

namespace micromix {

InputMoments::InputMoments(kernels::InputPlan plan)
    : plan_(std::move(plan)), second_(plan_.k * plan_.k) {
  assert(!plan_.segments.empty());
}

void InputMoments::add(int64_t m, const float* rows) {
  const int64_t k = plan_.k;
  const kernels::QuantizedRows quantized = kernels::quantize_rows(plan_, m, rows);
  std::vector<float> values(m * k);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < m; ++row) {
    kernels::dequantize_row(quantized, row, values.data() + row * k);
  }
  const int size = static_cast<int>(k);
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, size, static_cast<int>(m), 1.0f, values.data(),
              size, 1.0f, second_.data(), size);
}

}  // namespace micromix
