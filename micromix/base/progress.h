// How long-running library functions tell their caller how far they are.
#pragma once

#include <cstdint>
#include <functional>

namespace micromix {

// Called now and then, on the calling thread, with DONE of TOTAL units. May be empty.
using ProgressFunction = std::function<void(int64_t done, int64_t total)>;

inline void report(const ProgressFunction& progress, int64_t done, int64_t total) {
  if (progress) progress(done, total);
}

}  // namespace micromix
