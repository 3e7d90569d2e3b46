#include "micromix/kernels/cuda/launch.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

namespace micromix::kernels::cuda {
namespace {

// FIND() of each key once: it asks the driver, which takes longer than a launch.
template <typename Key, typename Value, typename Find>
Value remembered(std::map<Key, Value>& known, std::mutex& mutex, const Key& key, const Find& find) {
  const std::lock_guard lock(mutex);
  auto found = known.find(key);
  if (found == known.end()) found = known.emplace(key, find()).first;
  return found->second;
}

}  // namespace

void allow_shared_memory(const void* kernel) {
  static std::map<const void*, int> known;
  static std::mutex mutex;
  remembered(known, mutex, kernel, [&] {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    const int most =
        device_limits().shared_bytes_block - static_cast<int>(attributes.sharedSizeBytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
          "cudaFuncSetAttribute");
    return most;
  });
}

int blocks_per_processor(const void* kernel, int threads, int shared_bytes) {
  static std::map<std::tuple<const void*, int, int>, int> known;
  static std::mutex mutex;
  allow_shared_memory(kernel);
  return remembered(known, mutex, {kernel, threads, shared_bytes}, [&] {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                        static_cast<size_t>(shared_bytes)),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return std::max(blocks, 1);
  });
}

}  // namespace micromix::kernels::cuda
