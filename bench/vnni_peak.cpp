// Compiled for AVX512-VNNI, so it includes nothing whose inline functions another file might get.
#include "bench/vnni_peak.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace micromix::bench {

int64_t run_vnni(int64_t rounds) {
  // Two instructions start a clock and take five at most: 16 chains keep both units busy.
  constexpr int kChains = 16;
  constexpr int kMacs = 64;
  __m512i a = _mm512_set1_epi8(3);
  __m512i b = _mm512_set1_epi8(-5);
  asm volatile("" : "+v"(a), "+v"(b));
  __m512i sums[kChains];
#pragma GCC unroll 16
  for (__m512i& sum : sums) {
    sum = _mm512_setzero_si512();
    asm volatile("" : "+v"(sum));  // or the compiler sees 16 equal chains and runs one
  }
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
  }
#pragma GCC unroll 16
  for (__m512i& sum : sums) asm volatile("" : : "v"(sum));
  return rounds * kChains * kMacs;
}

}  // namespace micromix::bench
#else
namespace micromix::bench {
int64_t run_vnni(int64_t) {
  return 0;
}
}  // namespace micromix::bench
#endif
