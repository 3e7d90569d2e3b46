// The linears that are measured on a GPU: shapes of two models, and plans by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/random_weights.h"

namespace micromix::bench {

struct CudaShape {
  std::string name;  // "llama-3.1-8b/qkv", or "NxK"
  int64_t n, k;
};

// llama-3.1-8b and qwen2.5-32b: qkv, o, gate+up, down.
const std::vector<CudaShape>& model_shapes();

// TEXT is a shape's name, a model's, or NxK with K a multiple of 32; empty where it is none.
std::vector<CudaShape> find_shapes(const std::string& text);

// e2m1, paper, 5bit, e4m3.
const std::vector<std::string>& cuda_plan_names();

// The channels of each format in a weight of SHAPE.
std::vector<SegmentLength> cuda_segments(std::string_view plan, const CudaShape& shape);

}  // namespace micromix::bench
