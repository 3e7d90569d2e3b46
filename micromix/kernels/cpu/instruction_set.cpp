#include "micromix/kernels/cpu/instruction_set.h"

#include <cstdlib>

#include "micromix/base/error.h"

namespace micromix::kernels::cpu {

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> all;
#if defined(__x86_64__)
  // VNNI for the integers, VBMI for the tables of 64 codes, BF16 for the rest: Zen 4, Sapphire
  // Rapids and later have all.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("fma")) {
    all.push_back(&avx512_kernels());
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    all.push_back(&avx2_kernels());
  }
#endif
  all.push_back(&portable_kernels());
  return all;
}

const Kernels& chosen_kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
    const std::vector<const Kernels*> all = supported_kernels();
    const char* wanted = std::getenv("MICROMIX_CPU");
    if (wanted == nullptr || *wanted == '\0') return *all.front();
    std::string names;
    for (const Kernels* each : all) {
      if (each->name == wanted) return *each;
      names += (names.empty() ? "" : ", ") + std::string(each->name);
    }
    throw Error(fmt::format("MICROMIX_CPU: found '{}', expected one of: {}", wanted, names));
  }();
  return chosen;
}

}  // namespace micromix::kernels::cpu
