// Operands larger than the memory they take.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include <sys/mman.h>
#include <unistd.h>

namespace micromix::testing {

// SIZE bytes of address space that repeat PERIOD, of which physical memory holds one copy. PERIOD
// must fill whole pages.
class RepeatedBytes {
 public:
  RepeatedBytes(std::span<const std::byte> period, int64_t size) : size_(size) {
    const auto step = static_cast<int64_t>(period.size());
    const int file = ::memfd_create("period", MFD_CLOEXEC);
    if (::ftruncate(file, step) != 0) fail("ftruncate");
    const auto map = [&](std::byte* at, int64_t bytes, int protection, int flags, int descriptor) {
      void* const mapped = ::mmap(at, bytes, protection, flags, descriptor, 0);
      if (mapped == MAP_FAILED) fail("mmap");
      return static_cast<std::byte*>(mapped);
    };
    std::byte* const copy = map(nullptr, step, PROT_WRITE, MAP_SHARED, file);
    std::ranges::copy(period, copy);
    ::munmap(copy, step);
    data_ = map(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    for (int64_t at = 0; at < size; at += step) {
      map(data_ + at, std::min(step, size - at), PROT_READ, MAP_SHARED | MAP_FIXED, file);
    }
    ::close(file);
  }
  ~RepeatedBytes() { ::munmap(data_, size_); }
  RepeatedBytes(const RepeatedBytes&) = delete;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  std::span<const uint8_t> octets() const {
    return {reinterpret_cast<const uint8_t*>(data_), static_cast<size_t>(size_)};
  }

 private:
  [[noreturn]] static void fail(const char* call) {
    throw std::system_error(errno, std::generic_category(), call);
  }

  std::byte* data_;
  int64_t size_;
};

}  // namespace micromix::testing
