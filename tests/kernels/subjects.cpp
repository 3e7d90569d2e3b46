// The backends on the host that this machine can run.
#include "tests/kernels/subjects.h"

#include <cmath>
#include <memory>

#include "micromix/kernels/cpu/attention.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/reference/gemm.h"
#include "micromix/mx/bfloat16.h"

namespace micromix::testing {
namespace {

int64_t reference_additions(int64_t k) {
  return kernels::gemm_additions(k) + 1;  // the bias
}

// A weight is off by its score's chain of additions, three roundings and exp, twice.
double reference_attention_error(const kernels::AttentionShape& shape, int64_t positions,
                                 double magnitude) {
  const double score = magnitude / std::sqrt(static_cast<double>(shape.head_dim)) *
                       static_cast<double>(kernels::gemm_additions(shape.head_dim) + 3) * 0x1p-24;
  return 2.1 * (score + 4 * 0x1p-23) +
         static_cast<double>(kernels::gemm_additions(positions)) * 0x1p-23;
}

}  // namespace

std::vector<Subject> subjects() {
  static const auto cpu_backends = [] {
    std::vector<std::pair<std::string, std::unique_ptr<kernels::Backend>>> all;
    for (const kernels::cpu::Kernels* each : kernels::cpu::supported_kernels()) {
      all.emplace_back(each->name, kernels::make_cpu_backend(*each));
    }
    return all;
  }();
  std::vector<Subject> all = {{"reference", &kernels::reference_backend(), reference_additions,
                               [](float value) { return value; }, 0, reference_attention_error}};
  for (const auto& [name, backend] : cpu_backends) {
    all.push_back({name, backend.get(), kernels::cpu_additions,
                   [](float value) { return mx::round_to_bfloat16(value); }, 0,
                   kernels::cpu::attention_error});
  }
  return all;
}

}  // namespace micromix::testing
