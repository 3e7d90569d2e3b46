// Which of the CPU backend's kernels this machine can run.
#pragma once

#include <vector>

#include "micromix/kernels/cpu/kernels.h"

namespace micromix::kernels::cpu {

// Every table this machine can run, the fastest first.
std::vector<const Kernels*> supported_kernels();

// The fastest, or the one that the environment variable MICROMIX_CPU names (avx512, avx2,
// portable). Throws Error where that names none that this machine can run.
const Kernels& chosen_kernels();

}  // namespace micromix::kernels::cpu
