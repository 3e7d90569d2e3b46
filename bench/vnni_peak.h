// The register-only loop behind vnni_macs_per_second().
#pragma once

#include <cstdint>

namespace micromix::bench {

// Runs ROUNDS rounds of vpdpbusd and returns the multiply-adds done; 0 on other architectures. The
// CPU must have AVX512-VNNI.
int64_t run_vnni(int64_t rounds);

}  // namespace micromix::bench
