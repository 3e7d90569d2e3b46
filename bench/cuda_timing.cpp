#include "bench/cuda_timing.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bench/timing.h"
#include "micromix/base/error.h"
#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/devices.h"

namespace micromix::bench {

using kernels::cuda::check;

void require_gpu() {
  const std::string none = kernels::cuda::why_no_gpus();
  if (!none.empty()) throw Error("CUDA: " + none);
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
}

Stream::~Stream() {
  cudaStreamDestroy(stream_);
}

void Stream::wait() const {
  check(cudaStreamSynchronize(stream_), "wait");
}

int64_t cold_copies(int64_t bytes, int64_t l2_bytes) {
  if (bytes > l2_bytes) return 2;
  return std::max<int64_t>(3, 2 * l2_bytes / bytes + 1);
}

LaunchGraph::LaunchGraph(cudaStream_t stream, int64_t launches, int64_t copies,
                         const Launch& launch)
    : stream_(stream), launches_(launches) {
  check(cudaEventCreate(&begin_), "event");
  check(cudaEventCreate(&end_), "event");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int64_t i = 0; i < launches; ++i) launch(i % copies);
  cudaGraph_t captured = nullptr;
  check(cudaStreamEndCapture(stream, &captured), "capture");
  const cudaError_t status = cudaGraphInstantiate(&graph_, captured, 0);
  cudaGraphDestroy(captured);
  check(status, "graph");
}

LaunchGraph::LaunchGraph(LaunchGraph&& other) noexcept
    : stream_(other.stream_),
      launches_(other.launches_),
      graph_(std::exchange(other.graph_, nullptr)),
      begin_(std::exchange(other.begin_, nullptr)),
      end_(std::exchange(other.end_, nullptr)) {}

LaunchGraph::~LaunchGraph() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

double LaunchGraph::run() {
  check(cudaEventRecord(begin_, stream_), "event");
  check(cudaGraphLaunch(graph_, stream_), "graph");
  check(cudaEventRecord(end_, stream_), "event");
  check(cudaEventSynchronize(end_), "graph");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin_, end_), "event");
  return static_cast<double>(milliseconds) * 1e-3 / static_cast<double>(launches_);
}

LaunchGraph graph_of(cudaStream_t stream, double seconds, int64_t copies, const Launch& launch) {
  constexpr double kMostLaunches = 2000;
  LaunchGraph once(stream, copies, copies, launch);
  once.run();
  const double passes = seconds / (once.run() * static_cast<double>(copies));
  const double most = std::max(1.0, kMostLaunches / static_cast<double>(copies));
  const auto rounded = static_cast<int64_t>(std::clamp(std::round(passes), 1.0, most));
  return {stream, rounded * copies, copies, launch};
}

void run_interleaved(std::vector<TimedLaunches>& contenders, int rounds) {
  for (int round = -1; round < rounds; ++round) {
    for (TimedLaunches& contender : contenders) {
      const double seconds = contender.graph.run();
      if (round >= 0) contender.seconds.push_back(seconds);
    }
  }
}

Gpu measure_gpu(const Stream& stream) {
  int index = 0;
  check(cudaGetDevice(&index), "device");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "device");

  constexpr int64_t kBytes = int64_t{1} << 29;
  const kernels::cuda::DeviceArray<char> from(kBytes), to(kBytes);
  LaunchGraph copies(stream, 4, 1, [&](int64_t) {
    check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream),
          "copy");
  });
  std::vector<double> seconds;
  for (int round = 0; round < 7; ++round) seconds.push_back(copies.run());

  return {properties.name,
          properties.major,
          properties.minor,
          properties.multiProcessorCount,
          properties.l2CacheSize,
          kernels::cuda::cuda_versions(),
          2.0 * static_cast<double>(kBytes) / median(seconds)};
}

}  // namespace micromix::bench
