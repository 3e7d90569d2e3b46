#include "micromix/kernels/cpu/huge_buffer.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

#include <sys/mman.h>

namespace micromix::kernels::cpu {

HugeBuffer::HugeBuffer(int64_t size) : size_(size) {
  constexpr int64_t kHugePage = 2 << 20;
  constexpr int64_t kCacheLine = 64;
  if (size == 0) return;
  const int64_t alignment = size >= kHugePage ? kHugePage : kCacheLine;
  const int64_t rounded = (size + alignment - 1) / alignment * alignment;
  bytes_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, rounded)));
  if (!bytes_) throw std::bad_alloc();
  // Whole pages only: the tail stays on small ones, so no more is resident than is used.
  if (size >= kHugePage) madvise(bytes_.get(), size / kHugePage * kHugePage, MADV_HUGEPAGE);
}

namespace {

// Buffers that wait for an owner, smallest first.
struct Waiting {
  // A layer has its input and little else at a time; more would only hold memory.
  static constexpr size_t kMost = 4;
  std::mutex mutex;
  std::vector<HugeBuffer> buffers;
};

Waiting& waiting() {
  static Waiting all;
  return all;
}

}  // namespace

ScratchBuffer::ScratchBuffer(int64_t size) {
  {
    Waiting& all = waiting();
    const std::lock_guard lock(all.mutex);
    const auto fits = std::ranges::find_if(
        all.buffers, [&](const HugeBuffer& each) { return each.size() >= size; });
    if (fits != all.buffers.end()) {
      buffer_ = std::move(*fits);
      all.buffers.erase(fits);
      return;
    }
  }
  buffer_ = HugeBuffer(size);
}

ScratchBuffer::~ScratchBuffer() {
  if (buffer_.size() == 0) return;
  Waiting& all = waiting();
  const std::lock_guard lock(all.mutex);
  const auto place = std::ranges::lower_bound(all.buffers, buffer_.size(), {}, &HugeBuffer::size);
  all.buffers.insert(place, std::move(buffer_));
  if (all.buffers.size() > Waiting::kMost) all.buffers.erase(all.buffers.begin());
}

}  // namespace micromix::kernels::cpu
