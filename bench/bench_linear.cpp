// bench_linear: the mixed linear on this CPU, activation quantization included, against oneDNN's
// BF16 and u8 x s8 products of the same shape in the same run. Every product is checked before it
// is timed. Exit codes: 0 done, 1 a product is wrong, 2 bad usage.
//
// At M = 1 a product is a read of its weight, so every product measured goes through copies of its
// weight that no cache holds, and plain reads of memory take part in the turns.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <omp.h>

#include "bench/linear_report.h"
#include "bench/machine.h"
#include "bench/onednn_matmul.h"
#include "bench/program.h"
#include "bench/random_weights.h"
#include "bench/timing.h"
#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cpu/instruction_set.h"
#include "micromix/kernels/host.h"
#include "micromix/kernels/reference/oracle.h"

namespace micromix::bench {
namespace {

struct Shape {
  int64_t n, k;
};

struct Options {
  std::vector<std::string> plans;
  std::vector<std::string> shapes = {"4096x4096", "4864x896", "896x4864", "14336x4096"};
  std::vector<int64_t> m = {1, 16, 64, 512};
  int threads = omp_get_max_threads();
  int rounds = 7;
  bool with_f32 = false;
  std::string json;
};

// Bytes of weights to go through in turn; none where the weight is meant to stay in the cache.
int64_t rotated_bytes(int64_t m) {
  return m == 1 ? static_cast<int64_t>(MemoryReads::kBytes) : 0;
}

// One mixed linear and its input.
class MixedProduct {
 public:
  MixedProduct(int64_t m, int64_t n, const std::vector<SegmentLength>& segments)
      : m_(m), n_(n), plan_(random_plan(segments, 1)), x_(random_activations(m * plan_.k, 2)) {
    y_.resize(m * n);
    // Each copy has bytes of its own: a backend may read them in place.
    int64_t bytes = 0;
    do {
      weights_.push_back(random_weight(n, segments, 3));
      linears_.push_back(kernels::cpu_backend().prepare(weights_.back().weight, plan_));
      bytes += weight_bytes();
    } while (bytes < rotated_bytes(m));
  }

  int64_t weight_bytes() const { return weights_.front().packed_bytes(); }
  int64_t copies() const { return static_cast<int64_t>(linears_.size()); }

  // Multiplies once with every copy; the seconds spent on inputs.
  double pass() {
    const kernels::Backend& backend = kernels::cpu_backend();
    double quantizing = 0;
    for (const auto& linear : linears_) {
      const double start = now();
      backend.set(*input_, *prepared_plan_, rows_);
      quantizing += now() - start;
      const kernels::Product product{linear.get(), &product_};
      backend.multiply({&product, 1}, *input_);
    }
    return quantizing;
  }

  // Random outputs against the oracle, all copies against each other. Throws Error.
  void check() {
    const auto input = kernels::cpu_backend().input(plan_, m_, x_.data());
    kernels::cpu_backend().multiply(*linears_.front(), *input, y_.data());
    check_outputs();
    const std::vector<float> first = y_;
    for (const auto& linear : linears_) {
      kernels::cpu_backend().multiply(*linear, *input, y_.data());
      if (y_ != first) throw Error(fmt::format("{}: copies of one weight differ", where()));
    }
  }

 private:
  std::string where() const { return fmt::format("m {}, n {}, k {}", m_, n_, plan_.k); }

  void check_outputs() const {
    constexpr int kOutputs = 64;
    // Every product, every block, the order of segments, the bias.
    const int64_t additions = kernels::cpu_additions(plan_.k);
    const kernels::QuantizedRows rows = kernels::quantize_rows(plan_, m_, x_.data());
    std::mt19937_64 random(4);
    for (int i = 0; i < kOutputs; ++i) {
      const auto row = static_cast<int64_t>(random() % m_);
      const auto column = static_cast<int64_t>(random() % n_);
      const auto exact = kernels::oracle_output(weights_.front().weight, rows, row, column);
      const float found = y_[row * n_ + column];
      // NaN is wrong too.
      if (!(std::fabs(found - exact.value) <= kernels::error_bound(exact, additions))) {
        throw_invalid(where(), fmt::format("[{}, {}]", row, column), fmt::to_string(found),
                      fmt::to_string(exact.value));
      }
    }
  }

  int64_t m_, n_;
  kernels::InputPlan plan_;
  std::vector<float> x_, y_;
  std::unique_ptr<kernels::Input> input_ = kernels::cpu_backend().make_input();
  std::unique_ptr<kernels::Plan> prepared_plan_ = kernels::cpu_backend().prepare(plan_);
  kernels::HostBuffer rows_{x_.data(), m_, plan_.k};
  kernels::HostBuffer product_;
  std::vector<RandomWeight> weights_;
  std::vector<std::unique_ptr<kernels::Linear>> linears_;
};

// oneDNN's products of one shape, of all plans.
struct Peer {
  OnednnType type;
  std::unique_ptr<OnednnMatmul> matmul;  // none: not implemented
};

std::vector<OnednnType> peer_types(const Options& options) {
  std::vector<OnednnType> types = {OnednnType::kBF16, OnednnType::kU8S8};
  if (options.with_f32) types.push_back(OnednnType::kF32);
  return types;
}

std::vector<Peer> make_peers(const Options& options, int64_t m, const Shape& shape) {
  std::vector<Peer> peers;
  for (OnednnType type : peer_types(options)) {
    peers.push_back({type, OnednnMatmul::make(type, m, shape.n, shape.k, rotated_bytes(m))});
  }
  return peers;
}

Contender contender(const Peer& peer) {
  return {[&matmul = *peer.matmul] {
            for (int64_t copy = 0; copy < matmul.copies(); ++copy) matmul.multiply(copy);
            return 0.0;
          },
          peer.matmul->copies()};
}

Contender contender(const MemoryReads& memory, const MemoryReads::Way& way) {
  return {[&memory, way] {
    memory.read(way);
    return 0.0;
  }};
}

LinearResult measure(const Options& options, const NamedPlan& plan, const Shape& shape, int64_t m,
                     const std::vector<Peer>& peers, const MemoryReads& memory) {
  MixedProduct product(m, shape.n, segment_lengths(plan, shape.k));
  try {
    product.check();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", plan.name, error.what()));
  }

  Contender own = {[&] { return product.pass(); }, product.copies()};
  std::vector<Contender> others(peers.size());
  std::vector<Contender*> turns = {&own};
  for (size_t i = 0; i < peers.size(); ++i) {
    if (peers[i].matmul == nullptr) continue;
    others[i] = contender(peers[i]);
    turns.push_back(&others[i]);
  }
  const std::vector<MemoryReads::Way> ways =
      m == 1 ? ways_to_read(options.threads) : std::vector<MemoryReads::Way>{};
  std::vector<Contender> reads;
  reads.reserve(ways.size());
  for (const MemoryReads::Way& way : ways) {
    reads.push_back(contender(memory, way));
    turns.push_back(&reads.back());
  }
  run_interleaved(turns, options.rounds);

  LinearResult result;
  result.plan = plan.name;
  result.m = m;
  result.n = shape.n;
  result.k = shape.k;
  result.weight_bytes = product.weight_bytes();
  result.copies = product.copies();
  result.own_seconds = own.seconds;
  result.quantize_seconds = own.part;
  for (size_t i = 0; i < peers.size(); ++i) {
    const OnednnMatmul* matmul = peers[i].matmul.get();
    result.peers.push_back({std::string(name(peers[i].type)),
                            matmul == nullptr ? "" : matmul->implementation(), others[i].seconds});
  }
  for (size_t i = 0; i < ways.size(); ++i) result.reads.push_back({ways[i], reads[i].seconds});
  return result;
}

Machine measure_machine(const Options& options, const MemoryReads& memory) {
  Machine machine;
  machine.cpu = cpu_name();
  machine.threads = options.threads;
  machine.clock_hertz = clock_hertz();
  machine.vnni_one_thread = vnni_macs_per_second(1);
  machine.vnni_all_threads = vnni_macs_per_second(options.threads);
  const auto ways = ways_to_read(options.threads);
  std::vector<Contender> reads;
  std::vector<Contender*> turns;
  reads.reserve(ways.size());
  for (const MemoryReads::Way& way : ways) {
    reads.push_back(contender(memory, way));
    turns.push_back(&reads.back());
  }
  run_interleaved(turns, options.rounds);
  for (size_t i = 0; i < ways.size(); ++i) {
    machine.reads.push_back(
        {ways[i], static_cast<double>(MemoryReads::kBytes) / median(reads[i].seconds)});
  }
  return machine;
}

// "4096x4096" is N x K. Throws CLI::ValidationError.
Shape parse_shape(const std::string& text) {
  Shape shape{};
  char end = 0;
  const int fields = std::sscanf(text.c_str(), "%ldx%ld%c", &shape.n, &shape.k, &end);
  if (fields != 2 || shape.n < 1 || shape.k < 1 || shape.k % mx::kBlockSize != 0) {
    throw CLI::ValidationError("--shapes", fmt::format("{} is not NxK with K a multiple of {}",
                                                       one_line(text), mx::kBlockSize));
  }
  return shape;
}

std::vector<std::string> plan_names() {
  std::vector<std::string> names;
  for (const NamedPlan& plan : named_plans()) names.emplace_back(plan.name);
  return names;
}

const NamedPlan& find_plan(const std::string& plan_name) {
  return *std::find_if(named_plans().begin(), named_plans().end(),
                       [&](const NamedPlan& plan) { return plan.name == plan_name; });
}

void run(const Options& options) {
  std::vector<Shape> shapes;
  for (const std::string& text : options.shapes) shapes.push_back(parse_shape(text));
  omp_set_num_threads(options.threads);

  const MemoryReads memory;
  const Machine machine = measure_machine(options, memory);
  print_machine(machine, std::string(kernels::cpu::chosen_kernels().name), options.rounds);
  std::vector<std::string> peer_names;
  for (OnednnType type : peer_types(options)) peer_names.emplace_back(name(type));
  print_table_head(peer_names);

  Json json = {{"machine", to_json(machine)},
               {"backend", std::string(kernels::cpu::chosen_kernels().name)},
               {"rounds", options.rounds},
               {"round_seconds", kRoundSeconds},
               {"results", Json::array()}};
  for (const Shape& shape : shapes) {
    for (int64_t m : options.m) {
      const std::vector<Peer> peers = make_peers(options, m, shape);
      for (const std::string& plan : options.plans) {
        const LinearResult result = measure(options, find_plan(plan), shape, m, peers, memory);
        print_row(result);
        json["results"].push_back(to_json(result));
      }
    }
  }
  if (!options.json.empty()) write_file(options.json, json.dump(1) + "\n");
}

void add_options(CLI::App& app, Options& options) {
  app.get_formatter()->column_width(24);
  app.add_option("--plans", options.plans, "Formats of weight and activation")
      ->option_text(list_text(options.plans))
      ->delimiter(',')
      ->check(CLI::IsMember(plan_names()));
  app.add_option("--shapes", options.shapes, "Weights, NxK")
      ->option_text(list_text(options.shapes))
      ->delimiter(',');
  app.add_option("--m", options.m, "Rows of the activation")
      ->option_text(list_text(options.m))
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--threads", options.threads, "Threads to compute with (default: all processors)")
      ->option_text("N")
      ->check(CLI::Range(1, 4096));
  app.add_option("--rounds", options.rounds, "Rounds after the warm-up")
      ->option_text(fmt::format("N [{}]", options.rounds))
      ->check(CLI::Range(1, 1000));
  app.add_flag("--with-f32", options.with_f32, "oneDNN FP32 too");
  app.add_option("--json", options.json, "Write all rounds here")->option_text("FILE");
}

}  // namespace
}  // namespace micromix::bench

int main(int argc, char** argv) {
  CLI::App app("The mixed linear against oneDNN, interleaved, on this CPU.", "bench_linear");
  micromix::bench::Options options;
  options.plans = micromix::bench::plan_names();
  micromix::bench::add_options(app, options);
  return micromix::bench::run_program(app, argc, argv, [&] { micromix::bench::run(options); });
}
