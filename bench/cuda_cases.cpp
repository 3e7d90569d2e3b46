#include "bench/cuda_cases.h"

#include <cmath>
#include <cstdio>

#include "micromix/mx/format.h"

namespace micromix::bench {
namespace {

using mx::Format;

// Channels that the paper's thresholds give the linears of Llama-3.1-8B.
struct PaperPlan {
  int64_t e2m1, e3m2, e4m3;
};
constexpr PaperPlan kQkv = {2176, 640, 1280};
constexpr PaperPlan kO = {2432, 640, 1024};
constexpr PaperPlan kGateUp = {1920, 384, 1792};
constexpr PaperPlan kDown = {9984, 2432, 1920};

// Of a linear's place in the layer only the shape is known: down reads the wide intermediate,
// gate and up together write two of it, o is square.
const PaperPlan& paper_plan(const CudaShape& shape) {
  if (shape.k > shape.n) return kDown;
  if (shape.n >= 3 * shape.k) return kGateUp;
  return shape.n == shape.k ? kO : kQkv;
}

// PART of WHOLE channels, of K, in whole groups.
int64_t scaled(int64_t part, int64_t whole, int64_t k) {
  constexpr int64_t kGroup = 128;
  const double groups = static_cast<double>(part * k) / static_cast<double>(whole * kGroup);
  return std::llround(groups) * kGroup;
}

std::vector<SegmentLength> nonempty(const std::vector<SegmentLength>& all) {
  std::vector<SegmentLength> segments;
  for (const SegmentLength& segment : all) {
    if (segment.channels > 0) segments.push_back(segment);
  }
  return segments;
}

}  // namespace

const std::vector<CudaShape>& model_shapes() {
  static const std::vector<CudaShape> shapes = {
      {"llama-3.1-8b/qkv", 6144, 4096},      {"llama-3.1-8b/o", 4096, 4096},
      {"llama-3.1-8b/gate+up", 28672, 4096}, {"llama-3.1-8b/down", 4096, 14336},
      {"qwen2.5-32b/qkv", 7168, 5120},       {"qwen2.5-32b/o", 5120, 5120},
      {"qwen2.5-32b/gate+up", 55296, 5120},  {"qwen2.5-32b/down", 5120, 27648}};
  return shapes;
}

std::vector<CudaShape> find_shapes(const std::string& text) {
  std::vector<CudaShape> found;
  for (const CudaShape& shape : model_shapes()) {
    if (shape.name == text || shape.name.starts_with(text + "/")) found.push_back(shape);
  }
  if (!found.empty()) return found;
  CudaShape shape = {text, 0, 0};
  char end = 0;
  const int fields = std::sscanf(text.c_str(), "%ldx%ld%c", &shape.n, &shape.k, &end);
  if (fields == 2 && shape.n > 0 && shape.k > 0 && shape.k % mx::kBlockSize == 0) {
    found.push_back(shape);
  }
  return found;
}

const std::vector<std::string>& cuda_plan_names() {
  static const std::vector<std::string> names = {"e2m1", "paper", "5bit", "e4m3"};
  return names;
}

std::vector<SegmentLength> cuda_segments(std::string_view plan, const CudaShape& shape) {
  const int64_t k = shape.k;
  if (plan == "paper") {
    const PaperPlan& paper = paper_plan(shape);
    const int64_t whole = paper.e2m1 + paper.e3m2 + paper.e4m3;
    const int64_t e3m2 = scaled(paper.e3m2, whole, k);
    const int64_t e4m3 = scaled(paper.e4m3, whole, k);
    return nonempty(
        {{Format::kE2M1, k - e3m2 - e4m3}, {Format::kE3M2, e3m2}, {Format::kE4M3, e4m3}});
  }
  if (plan == "5bit") {
    const int64_t e2m3 = scaled(3, 8, k);
    return nonempty({{Format::kE2M1, k - e2m3}, {Format::kE2M3, e2m3}});
  }
  return {{plan == "e4m3" ? Format::kE4M3 : Format::kE2M1, k}};
}

}  // namespace micromix::bench
