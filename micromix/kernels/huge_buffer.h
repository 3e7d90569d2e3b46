// Bytes on 2 MiB pages where the system has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

namespace micromix::kernels {

// Uninitialized, aligned to 64 bytes at least. Large ones ask for huge pages: a streamed weight
// touches each page once, and a panel's outputs lie on another one in every row, so the walk to a
// translation would not be shared with anything.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  // Throws std::bad_alloc.
  explicit HugeBuffer(int64_t size);
  HugeBuffer(HugeBuffer&& other) noexcept
      : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
  HugeBuffer& operator=(HugeBuffer&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    return *this;
  }

  // Grows to SIZE, what it held is lost then. Throws std::bad_alloc.
  void reserve(int64_t size) {
    if (size > size_) *this = HugeBuffer(size);
  }

  uint8_t* data() { return bytes_.get(); }
  const uint8_t* data() const { return bytes_.get(); }
  std::byte* bytes() { return reinterpret_cast<std::byte*>(data()); }
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(data()); }
  float* floats() { return reinterpret_cast<float*>(data()); }
  int64_t size() const { return size_; }

 private:
  class Free {
   public:
    Free() : alignment_() {}
    explicit Free(std::align_val_t alignment) : alignment_(alignment) {}
    void operator()(uint8_t* bytes) const { ::operator delete(bytes, alignment_); }

   private:
    std::align_val_t alignment_;
  };
  std::unique_ptr<uint8_t[], Free> bytes_;
  int64_t size_ = 0;
};

}  // namespace micromix::kernels
