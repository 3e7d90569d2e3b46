// How GPU products are timed: a CUDA graph of many launches that go through copies of a weight,
// between two events. A launch costs the host nothing then, and finds its weight in no cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

namespace micromix::bench {

// Throws Error that says why, where there is none.
void require_gpu();

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// Copies of BYTES each, used in turn, that no L2 cache of L2_BYTES holds: between two uses of one
// copy more than twice the cache is read, or, of copies that exceed the cache, one other.
int64_t cold_copies(int64_t bytes, int64_t l2_bytes);

// Enqueues something on copy COPY; must enqueue no other work than launches.
using Launch = std::function<void(int64_t copy)>;

// LAUNCHES launches in a graph, on copies 0, 1, ..., COPIES - 1, 0, 1, ...
class LaunchGraph {
 public:
  LaunchGraph(cudaStream_t stream, int64_t launches, int64_t copies, const Launch& launch);
  LaunchGraph(LaunchGraph&& other) noexcept;
  ~LaunchGraph();

  int64_t launches() const { return launches_; }
  // Runs it and waits: seconds a launch.
  double run();

 private:
  cudaStream_t stream_;
  int64_t launches_;
  cudaGraphExec_t graph_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// A graph that takes about SECONDS, at least a launch on every copy. Runs the launches before.
LaunchGraph graph_of(cudaStream_t stream, double seconds, int64_t copies, const Launch& launch);

// One of the things measured in turn.
struct TimedLaunches {
  LaunchGraph graph;
  std::vector<double> seconds = {};  // a launch's, a round each
};
// Each in turn for a round, once to warm up and ROUNDS times that count.
void run_interleaved(std::vector<TimedLaunches>& contenders, int rounds);

// The current GPU.
struct Gpu {
  std::string name;
  int major, minor;
  int multiprocessors;
  int64_t l2_bytes;
  std::string versions;          // driver and runtime
  double copy_bytes_per_second;  // device to device, read and written bytes; as measured now
};
Gpu measure_gpu(const Stream& stream);

}  // namespace micromix::bench
