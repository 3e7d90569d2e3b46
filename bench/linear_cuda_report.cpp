#include "bench/linear_cuda_report.h"

#include <cmath>
#include <cstdio>
#include <optional>

#include <fmt/format.h>

#include "bench/cublaslt_matmul.h"
#include "bench/timing.h"

namespace micromix::bench {
namespace {

constexpr double kMicro = 1e6;  // seconds to microseconds
constexpr double kTera = 1e-12;

double flops(const CudaResult& result) {
  return 2.0 * static_cast<double>(result.m) * static_cast<double>(result.shape.n) *
         static_cast<double>(result.shape.k);
}

double share_of_bf16(const CudaResult& result, const CudaOwnRounds& own) {
  return static_cast<double>(own.weight_bytes) /
         (2.0 * static_cast<double>(result.shape.n) * static_cast<double>(result.shape.k));
}

// How many times faster than the first peer, over the shapes of Llama-3.1-8B.
struct Mean {
  std::string product, plan;
  double plain, overlap;
};

std::optional<Mean> mean(int64_t m, size_t contender, const std::vector<CudaResult>& results) {
  constexpr int kShapes = 4;
  int shapes = 0;
  double plain = 0, overlap = 0;
  for (const CudaResult& result : results) {
    if (result.m != m || !result.shape.name.starts_with("llama-3.1-8b/")) continue;
    const CudaOwnRounds& own = result.own[contender];
    const std::vector<double>& peer = result.peers.front().seconds;
    ++shapes;
    plain += std::log(median_ratio(peer, own.seconds));
    overlap += std::log(median_ratio(peer, own.overlap_seconds));
  }
  if (shapes != kShapes) return std::nullopt;
  const CudaOwnRounds& own = results.front().own[contender];
  return Mean{own.product, own.plan, std::exp(plain / shapes), std::exp(overlap / shapes)};
}

std::vector<Mean> means(int64_t m, const std::vector<CudaResult>& results) {
  std::vector<Mean> all;
  for (size_t contender = 0; contender < results.front().own.size(); ++contender) {
    if (const auto each = mean(m, contender, results)) all.push_back(*each);
  }
  return all;
}

void print_head(const CudaResult& result) {
  fmt::print("{:<20} {:>11} {:<12} {:<6} {:>8} {:>8}", "linear", "NxK", "product", "plan", "own us",
             "PDL us");
  for (const CudaPeerRounds& peer : result.peers) fmt::print(" {:>11}", peer.name + " us");
  fmt::print(" {:>13}", result.peers.front().name + "/own");
  for (const CudaPeerRounds& peer : result.peers) fmt::print(" {:>12}", peer.name + "/PDL");
  fmt::print(" {:>6} {:>7} {:>7}\n", "TB/s", "TFLOPS", "memory");
}

void print_row(const CudaResult& result, const CudaOwnRounds& own) {
  const double seconds = median(own.overlap_seconds);
  fmt::print("{:<20} {:>11} {:<12} {:<6} {:>8.2f} {:>8.2f}", result.shape.name,
             fmt::format("{}x{}", result.shape.n, result.shape.k), own.product, own.plan,
             median(own.seconds) * kMicro, seconds * kMicro);
  for (const CudaPeerRounds& peer : result.peers) {
    fmt::print(" {:>11.2f}", median(peer.seconds) * kMicro);
  }
  fmt::print(" {:>13.3f}", median_ratio(result.peers.front().seconds, own.seconds));
  for (const CudaPeerRounds& peer : result.peers) {
    fmt::print(" {:>12.3f}", median_ratio(peer.seconds, own.overlap_seconds));
  }
  fmt::print(" {:>6.3f} {:>7.1f} {:>6.1f}%\n",
             static_cast<double>(own.weight_bytes) / seconds * kTera,
             flops(result) / seconds * kTera, 100 * share_of_bf16(result, own));
}

}  // namespace

void print_gpu(const Gpu& gpu, int rounds) {
  fmt::print("GPU       {}, compute capability {}.{}, {} multiprocessors, L2 {:.0f} MiB\n",
             gpu.name, gpu.major, gpu.minor, gpu.multiprocessors,
             static_cast<double>(gpu.l2_bytes) * 0x1p-20);
  fmt::print("CUDA      {}; cuBLASLt {}\n", gpu.versions, CublasLt::version());
  fmt::print("copy      {:.3f} TB/s, read and written bytes\n", gpu.copy_bytes_per_second * kTera);
  fmt::print(
      "rounds    {}, contenders in turn; times are medians, a launch in a graph of many, weights\n"
      "          from memory; ratios (above 1: own is faster) are medians of each round's\n"
      "own       the product alone, its input quantized before; PDL: launches may overlap (TB/s "
      "of\n"
      "          packed weight and TFLOPS are of these); memory: packed weight to BF16's\n",
      rounds);
}

void print_table(int64_t m, const std::vector<CudaResult>& results) {
  fmt::print("\nM = {}\n", m);
  bool head = false;
  for (const CudaResult& result : results) {
    if (result.m != m) continue;
    if (!head) print_head(result);
    head = true;
    for (const CudaOwnRounds& own : result.own) print_row(result, own);
  }
  for (const Mean& each : means(m, results)) {
    fmt::print("geometric mean, llama-3.1-8b, {:<12} {:<6} {}/own {:.3f}, /PDL {:.3f}\n",
               each.product, each.plan, results.front().peers.front().name, each.plain,
               each.overlap);
  }
  std::fflush(stdout);
}

Json to_json(const Gpu& gpu) {
  return {{"name", gpu.name},
          {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
          {"multiprocessors", gpu.multiprocessors},
          {"l2_bytes", gpu.l2_bytes},
          {"cuda", gpu.versions},
          {"cublaslt", CublasLt::version()},
          {"copy_bytes_per_second", gpu.copy_bytes_per_second}};
}

Json to_json(const CudaResult& result) {
  Json json = {{"linear", result.shape.name}, {"n", result.shape.n},
               {"k", result.shape.k},         {"m", result.m},
               {"cublaslt", Json::object()},  {"own", Json::array()}};
  for (const CudaPeerRounds& peer : result.peers) {
    json["cublaslt"][peer.name] = {{"algorithm", peer.algorithm},
                                   {"algorithms_tried", peer.algorithms_tried},
                                   {"copies", peer.copies},
                                   {"seconds", peer.seconds},
                                   {"median_seconds", median(peer.seconds)}};
  }
  for (const CudaOwnRounds& own : result.own) {
    Json entry = {{"product", own.product},
                  {"plan", own.plan},
                  {"weight_bytes", own.weight_bytes},
                  {"share_of_bf16", share_of_bf16(result, own)},
                  {"copies", own.copies},
                  {"seconds", own.seconds},
                  {"median_seconds", median(own.seconds)},
                  {"overlap_seconds", own.overlap_seconds},
                  {"median_overlap_seconds", median(own.overlap_seconds)}};
    for (const CudaPeerRounds& peer : result.peers) {
      entry["ratio"][peer.name] = median_ratio(peer.seconds, own.seconds);
      entry["overlap_ratio"][peer.name] = median_ratio(peer.seconds, own.overlap_seconds);
    }
    json["own"].push_back(std::move(entry));
  }
  return json;
}

Json means_to_json(const std::vector<CudaResult>& results) {
  Json json = Json::array();
  int64_t last = 0;
  for (const CudaResult& result : results) {  // of one M lie side by side
    if (result.m == last) continue;
    last = result.m;
    for (const Mean& each : means(result.m, results)) {
      json.push_back({{"m", result.m},
                      {"product", each.product},
                      {"plan", each.plan},
                      {"ratio", each.plain},
                      {"overlap_ratio", each.overlap}});
    }
  }
  return json;
}

}  // namespace micromix::bench
