// What bench_linear_cuda prints and writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/cuda_cases.h"
#include "bench/cuda_timing.h"
#include "micromix/base/json.h"

namespace micromix::bench {

// Seconds a launch, one a round.
struct CudaPeerRounds {
  std::string name;
  std::string algorithm;
  int algorithms_tried;
  int64_t copies;  // of the weight, used in turn
  std::vector<double> seconds;
};
struct CudaOwnRounds {
  std::string product;  // "exact", "block-scaled"
  std::string plan;
  int64_t weight_bytes;  // a copy, on the GPU
  int64_t copies;
  std::vector<double> seconds;
  std::vector<double> overlap_seconds;  // with programmatic dependent launch
};

// One linear at one M: all contenders took turns.
struct CudaResult {
  CudaShape shape;
  int64_t m;
  std::vector<CudaPeerRounds> peers;  // the first is the one that means are over
  std::vector<CudaOwnRounds> own;
};

void print_gpu(const Gpu& gpu, int rounds);

// A line an own product, plan and shape; with all shapes of Llama-3.1-8B, the geometric means over
// them too.
void print_table(int64_t m, const std::vector<CudaResult>& results);

Json to_json(const Gpu& gpu);
Json to_json(const CudaResult& result);
// Geometric means of the first peer's time over our own by M, product and plan, over Llama-3.1-8B's
// shapes.
Json means_to_json(const std::vector<CudaResult>& results);

}  // namespace micromix::bench
