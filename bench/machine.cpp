#include "bench/machine.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <set>

#include <fmt/format.h>
#include <sys/mman.h>

#include "bench/timing.h"
#include "bench/vnni_peak.h"

namespace micromix::bench {
namespace {

// The best of many trials of about a millisecond: what disturbs a loop without memory only ever
// slows it, and some trial fits between two disturbances.
constexpr int kTrials = 100;

template <typename Rate>
double best_of_trials(const Rate& rate) {
  double best = 0;
  for (int trial = 0; trial < kTrials; ++trial) best = std::max(best, rate());
  return best;
}

bool has_vnni() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

// GCC makes of it what the instruction set has: one AVX-512 register, or four of SSE2.
using Line = uint64_t __attribute__((vector_size(64), may_alias));

#if defined(__x86_64__)
#define MICROMIX_WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MICROMIX_WIDEST
#endif

// BYTES is a multiple of four lines.
MICROMIX_WIDEST uint64_t sum_plain(const std::byte* data, size_t bytes) {
  Line sums[4] = {};
  const auto* lines = reinterpret_cast<const Line*>(data);
  for (size_t i = 0; i < bytes / sizeof(Line); i += 4) {
    for (size_t j = 0; j < 4; ++j) sums[j] += lines[i + j];
  }
  const Line sum = sums[0] + sums[1] + sums[2] + sums[3];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

MICROMIX_WIDEST uint64_t sum_prefetched(const std::byte* data, size_t bytes) {
  constexpr size_t kAhead = 64;  // lines; beyond the end a prefetch does nothing
  Line sums[4] = {};
  const auto* lines = reinterpret_cast<const Line*>(data);
  for (size_t i = 0; i < bytes / sizeof(Line); i += 4) {
    for (size_t j = 0; j < 4; ++j) {
      __builtin_prefetch(lines + i + j + kAhead);
      sums[j] += lines[i + j];
    }
  }
  const Line sum = sums[0] + sums[1] + sums[2] + sums[3];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

}  // namespace

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

double clock_hertz() {
  return best_of_trials([] {
    constexpr int64_t kRounds = 1 << 16;
    constexpr int kAdds = 64;
    uint64_t sum = 0;
    // Not a constant: recent CPUs add those while renaming, several a clock.
    uint64_t one = 1;
    asm volatile("" : "+r"(one));
    const double start = now();
    for (int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 64
      for (int i = 0; i < kAdds; ++i) {
        sum += one;
        asm volatile("" : "+r"(sum));
      }
    }
    return kRounds * kAdds / (now() - start);
  });
}

std::optional<double> vnni_macs_per_second(int threads) {
  if (!has_vnni()) return std::nullopt;
  return best_of_trials([&] {
    constexpr int64_t kRounds = 1 << 18;
    int64_t macs = 0;
    const double start = now();
#pragma omp parallel num_threads(threads) reduction(+ : macs)
    macs += run_vnni(kRounds);
    return static_cast<double>(macs) / (now() - start);
  });
}

std::string MemoryReads::Way::name() const {
  return fmt::format("{} thread{} {}", threads, threads == 1 ? "" : "s",
                     prefetched ? "prefetched" : "plain");
}

MemoryReads::MemoryReads() {
  constexpr size_t kHugePage = size_t{1} << 21;
  buffer_.reset(static_cast<std::byte*>(std::aligned_alloc(kHugePage, kBytes)));
  if (buffer_ == nullptr) throw std::bad_alloc();
  madvise(buffer_.get(), kBytes, MADV_HUGEPAGE);  // the best read is what counts
  std::memset(buffer_.get(), 1, kBytes);
}

void MemoryReads::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

void MemoryReads::read(const Way& way) const {
  const size_t share = kBytes / way.threads / 256 * 256;
  uint64_t sum = 0;
#pragma omp parallel for num_threads(way.threads) schedule(static) reduction(+ : sum)
  for (int thread = 0; thread < way.threads; ++thread) {
    const std::byte* data = buffer_.get() + thread * share;
    sum += way.prefetched ? sum_prefetched(data, share) : sum_plain(data, share);
  }
  asm volatile("" : : "r"(sum));
}

std::vector<MemoryReads::Way> ways_to_read(int threads) {
  std::vector<MemoryReads::Way> ways;
  for (int count : std::set{1, 2, threads}) {
    for (bool prefetched : {false, true}) ways.push_back({count, prefetched});
  }
  return ways;
}

}  // namespace micromix::bench
