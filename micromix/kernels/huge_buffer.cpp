#include "micromix/kernels/huge_buffer.h"

#include <new>

#include <sys/mman.h>

namespace micromix::kernels {

HugeBuffer::HugeBuffer(int64_t size) : size_(size) {
  constexpr int64_t kHugePage = 2 << 20;
  constexpr int64_t kCacheLine = 64;
  if (size == 0) return;
  const int64_t alignment = size >= kHugePage ? kHugePage : kCacheLine;
  const int64_t rounded = (size + alignment - 1) / alignment * alignment;
  const auto align = static_cast<std::align_val_t>(alignment);
  bytes_ = {static_cast<uint8_t*>(::operator new(rounded, align)), Free(align)};
  // Whole pages only: the tail stays on small ones, so no more is resident than is used.
  if (size >= kHugePage) madvise(bytes_.get(), size / kHugePage * kHugePage, MADV_HUGEPAGE);
}

}  // namespace micromix::kernels
