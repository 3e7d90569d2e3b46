#include "micromix/kernels/cuda/launch.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

namespace micromix::kernels::cuda {
namespace {

// The driver's answers, each asked for once, as that takes longer than a launch.
template <typename Key>
class Answers {
 public:
  template <typename Ask>
  int get(const Key& key, const Ask& ask) {
    const std::lock_guard lock(mutex_);
    const auto known = known_.find(key);
    return known != known_.end() ? known->second : known_.emplace(key, ask()).first->second;
  }

 private:
  std::map<Key, int> known_;
  std::mutex mutex_;
};

cudaFuncAttributes attributes_of(const void* kernel) {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  return attributes;
}

}  // namespace

LaunchConfig::LaunchConfig(const LaunchShape& shape, cudaStream_t stream, bool overlap) {
  unsigned count = 0;
  if (overlap) {
    attributes_[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes_[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster.x * shape.cluster.y > 1) {
    attributes_[count].id = cudaLaunchAttributeClusterDimension;
    attributes_[count++].val.clusterDim = {shape.cluster.x, shape.cluster.y, 1};
  }
  config_.gridDim = shape.blocks;
  config_.blockDim = dim3(shape.threads);
  config_.dynamicSmemBytes = shape.shared_bytes;
  config_.stream = stream;
  config_.attrs = attributes_;
  config_.numAttrs = count;
}

void allow_shared_memory(const void* kernel) {
  static Answers<const void*> allowed;
  allowed.get(kernel, [&] {
    const int most = device_limits().shared_bytes_block -
                     static_cast<int>(attributes_of(kernel).sharedSizeBytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
          "cudaFuncSetAttribute");
    return most;
  });
}

int blocks_per_processor(const void* kernel, int threads, int shared_bytes) {
  static Answers<std::tuple<const void*, int, int>> known;
  return known.get({kernel, threads, shared_bytes}, [&] {
    allow_shared_memory(kernel);
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                        static_cast<size_t>(shared_bytes)),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return std::max(blocks, 1);
  });
}

int clusters_at_once(const void* kernel, int threads, int shared_bytes, int size) {
  static Answers<std::tuple<const void*, int, int, int>> known;
  return known.get({kernel, threads, shared_bytes, size}, [&] {
    allow_shared_memory(kernel);
    const dim3 cluster(size);
    const LaunchConfig config({cluster, threads, shared_bytes, cluster}, nullptr, false);
    int clusters = 0;
    check(cudaOccupancyMaxActiveClusters(&clusters, kernel, config.get()),
          "cudaOccupancyMaxActiveClusters");
    return clusters;
  });
}

bool code_is_for(const void* kernel, int capability) {
  static Answers<const void*> versions;
  return versions.get(kernel, [&] { return attributes_of(kernel).ptxVersion; }) >= capability;
}

}  // namespace micromix::kernels::cuda
