// What every CUDA source needs: errors as micromix::Error, and device memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

namespace micromix::kernels::cuda {

// Throws Error("CUDA: WHAT: ...") unless STATUS is success. For calls and, as
// check(cudaGetLastError(), "quantize"), for launches.
void check(cudaError_t status, const char* what);

// Throws Error("CUDA: MESSAGE"). For CUDA sources, whose compiler cannot read base/error.h.
[[noreturn]] void fail(const std::string& message);

// cudaMalloc; throws Error that names BYTES, what is free and the device.
void* allocate(int64_t bytes);

struct DeviceLimits {
  int capability;  // compute capability, 90 for 9.0
  int multiprocessors;
  int shared_bytes_each;   // of a multiprocessor
  int shared_bytes_block;  // that a thread block may have, what its kernel declares included
};

// Of the device that is current when first asked; a process works on one.
const DeviceLimits& device_limits();

// An uninitialized array in device memory.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t size) { resize(size); }
  explicit DeviceArray(std::span<const T> values) { assign(values); }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  // Grows to the largest size asked for and keeps that memory; values are lost when it grows.
  T* resize(int64_t size) {
    if (size > capacity_) {
      cudaFree(std::exchange(data_, nullptr));
      size_ = capacity_ = 0;  // should the allocation fail
      data_ = static_cast<T*>(allocate(size * static_cast<int64_t>(sizeof(T))));
      capacity_ = size;
    }
    size_ = size;
    return data_;
  }
  // Copies from the host and waits.
  void assign(std::span<const T> values) {
    resize(static_cast<int64_t>(values.size()));
    check(cudaMemcpy(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice), "copy");
    // From pageable memory the call may return before the bytes are there, which streams that do
    // not wait for the default one would see.
    check(cudaStreamSynchronize(nullptr), "copy");
  }
  std::vector<T> to_host() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "copy");
    return values;
  }

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return capacity_ * static_cast<int64_t>(sizeof(T)); }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
  int64_t capacity_ = 0;
};

}  // namespace micromix::kernels::cuda
