// bench_linear_cuda: the mixed linear's products on this GPU against cuBLASLt's in FP8 and BF16, of
// the same shapes, in turn in one run. Every product is checked before it is timed. Exit codes: 0
// done, 1 a product is wrong or there is no GPU, 2 bad usage.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench/cublaslt_matmul.h"
#include "bench/cuda_cases.h"
#include "bench/cuda_rows.h"
#include "bench/cuda_timing.h"
#include "bench/linear_cuda_report.h"
#include "bench/mixed_cuda_product.h"
#include "bench/program.h"
#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/kernels/cuda/backend.h"
#include "micromix/kernels/cuda/block_scaled/product.h"
#include "micromix/mx/format.h"

namespace micromix::bench {
namespace {

namespace block_scaled = kernels::cuda::block_scaled;
using kernels::CudaProducts;

constexpr double kGraphSeconds = 1.5e-3;

struct Options {
  std::vector<std::string> products;  // none: those that the GPU has instructions for
  std::vector<std::string> plans = cuda_plan_names();
  std::vector<std::string> shapes = {"llama-3.1-8b", "qwen2.5-32b"};
  std::vector<int64_t> m = {1, 8, 16, 32, 64, 128, 512, 2048, 8192};
  int rounds = 7;
  std::string json;
};

// The weights of one shape, on the GPU for the whole run.
struct ShapeWeights {
  CudaShape shape;
  RotatedRows fp8, bf16;
  std::vector<std::unique_ptr<MixedCudaWeight>> mixed;  // one a product and plan
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), gpu_(measure_gpu(stream_)) {}

  void run(const std::vector<CudaShape>& shapes) {
    if (is_run(CudaProducts::kBlockScaled) && gpu_.major < 9) {
      throw Error(
          fmt::format("--products block-scaled: found compute capability {}.{}, expected "
                      "9.0 or later",
                      gpu_.major, gpu_.minor));
    }
    print_gpu(gpu_, options_.rounds);
    if (is_run(CudaProducts::kBlockScaled) && !block_scaled::native_instructions_work()) {
      fmt::print("          block-scaled products are emulated here: their times mean nothing\n");
    }
    for (const CudaShape& shape : shapes) weights_.push_back(make_weights(shape));
    std::vector<CudaResult> results;
    for (int64_t m : options_.m) {
      for (const ShapeWeights& weights : weights_) results.push_back(measure(weights, m));
      print_table(m, results);
      write(results);  // also of a run that is cut short
    }
  }

 private:
  bool is_run(CudaProducts product) const {
    if (options_.products.empty()) {
      return product == CudaProducts::kExact ||
             (product == CudaProducts::kBlockScaled && block_scaled::native_instructions_work());
    }
    return std::ranges::count(options_.products, name(product)) > 0;
  }

  ShapeWeights make_weights(const CudaShape& shape) {
    using Type = NormalMatrix::Type;
    ShapeWeights weights = {
        shape,
        RotatedRows(weight_values_, Type::kE4M3, shape.n, shape.k, gpu_.l2_bytes),
        RotatedRows(weight_values_, Type::kBF16, shape.n, shape.k, gpu_.l2_bytes),
        {}};
    for (CudaProducts product : kernels::kCudaProducts) {
      if (!is_run(product)) continue;
      for (const std::string& plan : options_.plans) {
        weights.mixed.push_back(
            std::make_unique<MixedCudaWeight>(plan, product, shape, gpu_.l2_bytes, stream_));
      }
    }
    return weights;
  }

  CudaResult measure(const ShapeWeights& weights, int64_t m) {
    using Type = NormalMatrix::Type;
    constexpr int64_t kRowGroup = 16;  // of which FP8 products may want a multiple
    const int64_t rows = (m + kRowGroup - 1) / kRowGroup * kRowGroup;
    const DeviceRows fp8(x_values_, Type::kE4M3, rows, weights.shape.k);
    const DeviceRows bf16(x_values_, Type::kBF16, rows, weights.shape.k);
    __nv_bfloat16* y = y_.resize(rows * weights.shape.n);

    CudaResult result = {weights.shape, m, {}, {}};
    std::vector<TimedLaunches> turns;  // cuBLASLt's, then each own product's two
    for (CublasLtType type : kCublasLtTypes) {
      const bool is_bf16 = type == CublasLtType::kBF16;
      const RotatedRows& weight = is_bf16 ? weights.bf16 : weights.fp8;
      const CublasLtMatmul peer(library_, type, weight, is_bf16 ? bf16 : fp8, m, y, stream_);
      add_turn(turns, weight.copies(), [&](int64_t copy) { peer.multiply(copy); });
      result.peers.push_back({std::string(name(type)),
                              peer.algorithm(),
                              peer.algorithms_tried(),
                              weight.copies(),
                              {}});
    }
    std::vector<std::unique_ptr<MixedCudaProduct>> products;  // graphs read their inputs
    for (const auto& weight : weights.mixed) {
      MixedCudaProduct& own =
          *products.emplace_back(std::make_unique<MixedCudaProduct>(*weight, bf16, m, y, stream_));
      own.check();
      for (bool overlap : {false, true}) {
        add_turn(turns, weight->copies(), [&](int64_t copy) { own.multiply(copy, overlap); });
      }
      result.own.push_back({std::string(name(weight->product())),
                            weight->plan_name(),
                            weight->bytes(),
                            weight->copies(),
                            {},
                            {}});
    }
    run_interleaved(turns, options_.rounds);

    auto turn = turns.begin();
    for (CudaPeerRounds& peer : result.peers) peer.seconds = (turn++)->seconds;
    for (CudaOwnRounds& own : result.own) {
      own.seconds = (turn++)->seconds;
      own.overlap_seconds = (turn++)->seconds;
    }
    return result;
  }

  void add_turn(std::vector<TimedLaunches>& turns, int64_t copies, const Launch& launch) {
    turns.push_back({graph_of(stream_, kGraphSeconds, copies, launch)});
  }

  void write(const std::vector<CudaResult>& results) const {
    if (options_.json.empty()) return;
    Json json = {{"gpu", to_json(gpu_)},
                 {"rounds", options_.rounds},
                 {"graph_seconds", kGraphSeconds},
                 {"means", means_to_json(results)},
                 {"results", Json::array()}};
    for (const CudaResult& result : results) json["results"].push_back(to_json(result));
    write_file(options_.json, json.dump(1) + "\n");
  }

  const Options& options_;
  Stream stream_;
  Gpu gpu_;
  CublasLt library_;
  NormalMatrix x_values_{1}, weight_values_{2};
  std::vector<ShapeWeights> weights_;
  kernels::cuda::DeviceArray<__nv_bfloat16> y_;  // everybody's outputs
};

// Throws CLI::ValidationError.
std::vector<CudaShape> parse_shapes(const std::vector<std::string>& texts) {
  std::vector<CudaShape> shapes;
  for (const std::string& text : texts) {
    const std::vector<CudaShape> found = find_shapes(text);
    if (found.empty()) {
      throw CLI::ValidationError(
          "--shapes", fmt::format("{} is no shape, no model and not NxK with K a multiple of {}",
                                  one_line(text), mx::kBlockSize));
    }
    shapes.insert(shapes.end(), found.begin(), found.end());
  }
  return shapes;
}

void add_options(CLI::App& app, Options& options) {
  app.get_formatter()->column_width(24);
  std::vector<std::string> products;
  for (CudaProducts product : kernels::kCudaProducts) products.emplace_back(name(product));
  app.add_option("--products", options.products,
                 "The own kernels; exact-mma-sync keeps to what every GPU has, block-scaled is "
                 "emulated, slowly, where the GPU lacks it")
      ->option_text("LIST [exact, and block-scaled where the GPU has it]")
      ->delimiter(',')
      ->check(CLI::IsMember(products));
  app.add_option("--plans", options.plans, "Formats of weight and activation")
      ->option_text(list_text(options.plans))
      ->delimiter(',')
      ->check(CLI::IsMember(cuda_plan_names()));
  app.add_option("--shapes", options.shapes,
                 "Weights: models, MODEL/LINEAR (qkv, o, gate+up, down), NxK")
      ->option_text(list_text(options.shapes))
      ->delimiter(',');
  app.add_option("--m", options.m, "Rows of the activation")
      ->option_text(list_text(options.m))
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--rounds", options.rounds, "Rounds after the warm-up")
      ->option_text(fmt::format("N [{}]", options.rounds))
      ->check(CLI::Range(1, 1000));
  app.add_option("--json", options.json, "Write all rounds here")->option_text("FILE");
}

}  // namespace
}  // namespace micromix::bench

int main(int argc, char** argv) {
  CLI::App app("The mixed linear's products against cuBLASLt's, interleaved, on this GPU.",
               "bench_linear_cuda");
  micromix::bench::Options options;
  micromix::bench::add_options(app, options);
  return micromix::bench::run_program(app, argc, argv, [&] {
    const auto shapes = micromix::bench::parse_shapes(options.shapes);
    micromix::bench::require_gpu();
    micromix::bench::Bench(options).run(shapes);
  });
}
