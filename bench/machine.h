// What this machine can do at most: its clock, its integer multiply-adds, its memory reads. A
// virtual machine's neighbours change all three, so figures are comparable within one run only.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace micromix::bench {

// As the system names it.
std::string cpu_name();

// Additions that wait for each other take one clock each, on every CPU there is.
double clock_hertz();

// 8-bit multiply-adds a second of vpdpbusd (512 bits wide) from registers, THREADS together; none
// where the CPU lacks AVX512-VNNI.
std::optional<double> vnni_macs_per_second(int threads);

// 2^29 bytes, beyond any cache, read in one of several ways.
class MemoryReads {
 public:
  static constexpr size_t kBytes = size_t{1} << 29;

  struct Way {
    int threads;
    bool prefetched;  // software asks for what comes 4 KiB later
    std::string name() const;
  };

  MemoryReads();
  void read(const Way& way) const;

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte[], Free> buffer_;
};

// {1, 2, THREADS} x {plain, prefetched}.
std::vector<MemoryReads::Way> ways_to_read(int threads);

}  // namespace micromix::bench
