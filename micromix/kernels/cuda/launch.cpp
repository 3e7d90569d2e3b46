#include "micromix/kernels/cuda/launch.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <tuple>

namespace micromix::kernels::cuda {

// All ask the driver once, as that takes longer than a launch.

void allow_shared_memory(const void* kernel) {
  static std::set<const void*> allowed;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (allowed.contains(kernel)) return;
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  const int most =
      device_limits().shared_bytes_block - static_cast<int>(attributes.sharedSizeBytes);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
        "cudaFuncSetAttribute");
  allowed.insert(kernel);
}

int blocks_per_processor(const void* kernel, int threads, int shared_bytes) {
  static std::map<std::tuple<const void*, int, int>, int> known;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  int& blocks = known[{kernel, threads, shared_bytes}];
  if (blocks == 0) {
    allow_shared_memory(kernel);
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                        static_cast<size_t>(shared_bytes)),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    blocks = std::max(blocks, 1);
  }
  return blocks;
}

int clusters_at_once(const void* kernel, int threads, int shared_bytes, int size) {
  static std::map<std::tuple<const void*, int, int, int>, int> known;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const std::tuple key(kernel, threads, shared_bytes, size);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  allow_shared_memory(kernel);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(size), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(size);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config),
        "cudaOccupancyMaxActiveClusters");
  known[key] = clusters;
  return clusters;
}

bool code_is_for(const void* kernel, int capability) {
  static std::map<const void*, int> known;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  int& version = known[kernel];
  if (version == 0) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    version = attributes.ptxVersion;
  }
  return version >= capability;
}

}  // namespace micromix::kernels::cuda
