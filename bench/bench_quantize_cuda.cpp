// bench_quantize_cuda: the fused quantizers on this GPU against device-to-device copies that read
// and write as many bytes, in turn in one run, from and to memory that no cache holds; and against
// empty launches, which few rows cost mostly. Random rows of every case are checked before it is
// timed. Exit codes: 0 done, 1 a value is wrong or there is no GPU, 2 bad usage.
#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "bench/cuda_timing.h"
#include "bench/empty_kernel.h"
#include "bench/program.h"
#include "bench/random_weights.h"
#include "bench/timing.h"
#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/base/json.h"
#include "micromix/kernels/cuda/code_rows.h"
#include "micromix/kernels/cuda/device_plan.h"
#include "micromix/kernels/cuda/exact_rows.h"
#include "micromix/kernels/cuda/quantize.h"
#include "micromix/kernels/reference/oracle.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/element.h"
#include "micromix/mx/packing.h"

namespace micromix::bench {
namespace {

using kernels::cuda::check;
using kernels::cuda::DeviceArray;

constexpr double kGraphSeconds = 1.5e-3;
constexpr float kEps = 1e-5f;

enum class Source : uint8_t { kPlain, kRmsNorm, kSwiglu };
enum class Output : uint8_t { kExact, kCodes };

const char* name(Source source) {
  return source == Source::kPlain ? "plain" : source == Source::kRmsNorm ? "rmsnorm" : "swiglu";
}
const char* name(Output output) {
  return output == Output::kExact ? "exact" : "codes";
}

struct Options {
  std::string plan = "paper";
  std::vector<int64_t> m = {1, 16, 2048, 8192};
  std::vector<int64_t> k = {4096, 14336};
  int rounds = 15;
  std::string json;
};

using Bits = uint16_t;  // of BF16

// What matrices are made of. An odd size, so that rows differ.
constexpr int64_t kPool = (int64_t{1} << 20) - 3;

const std::vector<float>& float_pool() {
  static const std::vector<float> pool = random_activations(kPool, 1);
  return pool;
}
const std::vector<Bits>& bf16_pool() {
  static const std::vector<Bits> pool = [] {
    std::vector<Bits> bits;
    for (const float value : random_activations(kPool, 2)) {
      bits.push_back(mx::to_bfloat16(value).bits);
    }
    return bits;
  }();
  return pool;
}

// SIZE values in device memory: a pool over and over from one of its values on, so that any element
// is known without the matrix.
template <typename T>
class PooledMatrix {
 public:
  PooledMatrix(const std::vector<T>& pool, int64_t first, int64_t size)
      : pool_(pool), first_(first), memory_(size) {
    const auto length = static_cast<int64_t>(pool.size());
    const int64_t head = std::min(size, length - first);
    copy(memory_.data(), pool.data() + first, head, cudaMemcpyHostToDevice);
    const int64_t turn = std::min(size, length);
    copy(memory_.data() + head, pool.data(), turn - head, cudaMemcpyHostToDevice);
    // Whole turns, twice as many each time.
    for (int64_t done = turn; done < size;) {
      const int64_t count = std::min(done, size - done);
      copy(memory_.data() + done, memory_.data(), count, cudaMemcpyDeviceToDevice);
      done += count;
    }
  }
  T* data() const { return memory_.data(); }
  T operator[](int64_t i) const {
    return pool_[static_cast<size_t>((first_ + i) % static_cast<int64_t>(pool_.size()))];
  }

 private:
  static void copy(T* to, const T* from, int64_t count, cudaMemcpyKind kind) {
    check(cudaMemcpy(to, from, static_cast<size_t>(count) * sizeof(T), kind), "copy");
  }

  const std::vector<T>& pool_;
  int64_t first_;
  DeviceArray<T> memory_;
};

__nv_bfloat16* bf16(Bits* bits) {
  return reinterpret_cast<__nv_bfloat16*>(bits);
}

// All that one call touches.
struct Buffers {
  kernels::cuda::DevicePlan plan;
  PooledMatrix<float> gain;
  PooledMatrix<Bits> first, second;  // x or addend or gate; up
  PooledMatrix<float> residual;
  kernels::cuda::CodeRowsMemory codes = {};
  kernels::cuda::ExactRowsMemory exact = {};
};

class QuantizerCase {
 public:
  QuantizerCase(const Options& options, Source source, Output output, int64_t m, int64_t k,
                int64_t l2_bytes)
      : source_(source),
        output_(output),
        m_(m),
        k_(k),
        plan_(make_plan(options.plan, k)),
        blocks_(kernels::cuda::DevicePlan(plan_).view().blocks) {
    for (int64_t copy = 0; copy < cold_copies(bytes(), l2_bytes); ++copy) add_buffers();
  }

  int64_t copies() const { return static_cast<int64_t>(buffers_.size()); }
  // Read and written.
  int64_t bytes() const { return bytes_read() + bytes_written(); }

  void launch(int64_t copy, cudaStream_t stream, __nv_bfloat16* rows = nullptr) const {
    const Buffers& buffers = buffers_[copy];
    kernels::cuda::QuantizedOutputs outputs;
    if (output_ == Output::kExact) {
      outputs.exact = &buffers.exact.view();
    } else {
      outputs.codes = &buffers.codes.view();
    }
    outputs.rows = rows;
    const kernels::cuda::PlanView& plan = buffers.plan.view();
    switch (source_) {
      case Source::kPlain:
        quantize(plan, m_, kernels::cuda::PlainRows{bf16(buffers.first.data())}, outputs, stream);
        break;
      case Source::kRmsNorm:
        quantize(plan, m_,
                 kernels::cuda::RmsNormRows{buffers.residual.data(), bf16(buffers.first.data()),
                                            buffers.gain.data(), kEps},
                 outputs, stream);
        break;
      case Source::kSwiglu:
        quantize(plan, m_,
                 kernels::cuda::SwigluRows{bf16(buffers.first.data()), bf16(buffers.second.data())},
                 outputs, stream);
        break;
    }
  }

  // Runs once on the first buffers; random rows against FP64, and what was made of them against the
  // oracle. Throws Error.
  void check_values() const {
    const DeviceArray<Bits> rows(m_ * k_);
    launch(0, nullptr, bf16(rows.data()));
    check(cudaDeviceSynchronize(), "quantize");
    std::mt19937_64 random(5);
    for (int i = 0; i < 4; ++i) {
      const auto row = static_cast<int64_t>(random() % static_cast<uint64_t>(m_));
      std::vector<Bits> bits(k_);
      to_host(bits.data(), rows.data() + row * k_, k_);
      std::vector<float> values;
      for (const Bits each : bits) values.push_back(mx::to_float({each}));
      check_row(row, values);
      const kernels::QuantizedRows expected = kernels::quantize_rows(plan_, 1, values.data());
      if (output_ == Output::kExact) {
        check_exact(row, expected);
      } else {
        check_codes(row, expected);
      }
    }
  }

 private:
  static kernels::InputPlan make_plan(const std::string& plan, int64_t k) {
    const auto named = std::find_if(named_plans().begin(), named_plans().end(),
                                    [&](const NamedPlan& each) { return each.name == plan; });
    return random_plan(segment_lengths(*named, k), 1);
  }

  int64_t values_written() const { return blocks_ * m_ * mx::kBlockSize; }

  int64_t bytes_read() const {
    const int64_t per_value = source_ == Source::kPlain ? 2 : source_ == Source::kRmsNorm ? 6 : 4;
    const int64_t constants = source_ == Source::kRmsNorm ? 8 : 4;  // permutation, gain
    return m_ * k_ * per_value + k_ * constants;
  }

  int64_t bytes_written() const {
    int64_t bytes = source_ == Source::kRmsNorm ? 4 * m_ * k_ : 0;
    if (output_ == Output::kExact) return bytes + values_written() / 32 * (64 + 1) + m_;
    for (const auto& segment : plan_.segments) {
      bytes += m_ * mx::packed_bytes(*segment.format, segment.channels) +
               m_ * segment.channels / mx::kBlockSize;
    }
    return bytes;
  }

  void add_buffers() {
    const int64_t size = m_ * k_;
    Buffers buffers{kernels::cuda::DevicePlan(plan_),
                    {float_pool(), 1000, k_},
                    {bf16_pool(), 0, size},
                    {bf16_pool(), 300'000, source_ == Source::kSwiglu ? size : 1},
                    {float_pool(), 0, source_ == Source::kRmsNorm ? size : 1}};
    if (output_ == Output::kExact) {
      buffers.exact.resize(buffers.plan.view(), m_);
    } else {
      buffers.codes.resize(buffers.plan.view(), m_);
    }
    buffers_.push_back(std::move(buffers));
  }

  template <typename T>
  static void to_host(T* to, const T* from, int64_t count) {
    check(cudaMemcpy(to, from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyDeviceToHost),
          "copy");
  }

  [[noreturn]] void fail(int64_t row, const std::string& what) const {
    throw Error(fmt::format("{} to {}, m {}, k {}: row {}: wrong {}", name(source_), name(output_),
                            m_, k_, row, what));
  }

  // The values before quantizing, by a bound that only mistakes exceed; tests/cuda has the derived
  // ones.
  void check_row(int64_t row, const std::vector<float>& found) const {
    const Buffers& buffers = buffers_.front();
    const auto first = [&](int64_t j) {
      return double{mx::to_float({buffers.first[row * k_ + j]})};
    };
    const auto sum = [&](int64_t j) { return buffers.residual[row * k_ + j] + first(j); };
    double squares = 0;
    for (int64_t j = 0; j < k_ && source_ == Source::kRmsNorm; ++j) squares += sum(j) * sum(j);
    const double factor = 1 / std::sqrt(squares / static_cast<double>(k_) + kEps);
    for (int64_t j = 0; j < k_; ++j) {
      double exact = first(j);
      if (source_ == Source::kRmsNorm) exact = sum(j) * factor * buffers.gain[j];
      if (source_ == Source::kSwiglu) {
        exact *= mx::to_float({buffers.second[row * k_ + j]}) / (1 + std::exp(-exact));
      }
      if (!(std::fabs(found[j] - exact) <= 0x1p-7 * std::fabs(exact) + 1e-6)) {
        fail(row, fmt::format("value of channel {}: found {}, expected {}", j, found[j], exact));
      }
    }
  }

  void check_exact(int64_t row, const kernels::QuantizedRows& expected) const {
    std::vector<Bits> found(blocks_ * mx::kBlockSize);
    constexpr size_t kBytes = mx::kBlockSize * sizeof(Bits);
    check(cudaMemcpy2D(found.data(), kBytes,
                       buffers_.front().exact.view().values + row * mx::kBlockSize,
                       static_cast<size_t>(m_) * kBytes, kBytes, static_cast<size_t>(blocks_),
                       cudaMemcpyDeviceToHost),
          "copy");
    std::vector<float> values(k_);
    kernels::dequantize_row(expected, 0, values.data());
    const kernels::cuda::PlanView& plan = buffers_.front().plan.view();
    for (int s = 0; s < plan.segment_count; ++s) {
      const auto& segment = plan.segments[s];
      for (int32_t i = 0; i < segment.channels; ++i) {
        const int64_t block = segment.first_block + i / mx::kBlockSize;
        const int place = kernels::cuda::exact_place(row, i % mx::kBlockSize);
        const float value = mx::to_float({found[block * mx::kBlockSize + place]});
        if (value != values[segment.first + i]) fail(row, "exact rows");
      }
    }
  }

  void check_codes(int64_t row, const kernels::QuantizedRows& expected) const {
    const kernels::cuda::CodeRows& found = buffers_.front().codes.view();
    const kernels::cuda::PlanView& plan = buffers_.front().plan.view();
    for (int s = 0; s < plan.segment_count; ++s) {
      const auto& segment = plan.segments[s];
      const int64_t bytes = kernels::cuda::block_bytes(segment.format);
      for (int32_t block = 0; block < segment.channels / mx::kBlockSize; ++block) {
        const int64_t from = segment.first + int64_t{block} * mx::kBlockSize;
        std::vector<uint8_t> packed(bytes), codes(bytes);
        mx::pack(segment.format, {expected.codes.data() + from, mx::kBlockSize}, packed);
        const int bits = kernels::cuda::bits_of(segment.format);
        const int64_t at = (block / 2 * m_ + row) * kernels::cuda::kBlocksPerChunk +
                           kernels::cuda::stored_block(bits, row, block % 2);
        to_host(codes.data(), found.segments[s].codes + at * bytes, bytes);
        if (codes != packed) fail(row, "codes");
        uint8_t scale = 0;
        const int64_t chunk = (segment.first_block + block) / kernels::cuda::kBlocksPerChunk;
        to_host(&scale,
                found.scales + (chunk * kernels::cuda::padded_rows(m_) + row) * 2 + block % 2, 1);
        if (scale != expected.scales[from / mx::kBlockSize]) fail(row, "scales");
      }
    }
  }

  Source source_;
  Output output_;
  int64_t m_, k_;
  kernels::InputPlan plan_;
  int64_t blocks_;  // of exact rows
  std::vector<Buffers> buffers_;
};

// Copies that read and write BYTES together.
class CopyCase {
 public:
  CopyCase(int64_t bytes, int64_t l2_bytes) : half_(bytes / 2) {
    for (int64_t copy = 0; copy < cold_copies(bytes, l2_bytes); ++copy) {
      from_.emplace_back(half_);
      to_.emplace_back(half_);
      check(cudaMemset(from_.back().data(), 1, static_cast<size_t>(half_)), "memset");
    }
  }
  int64_t copies() const { return static_cast<int64_t>(from_.size()); }
  void launch(int64_t copy, cudaStream_t stream) const {
    check(cudaMemcpyAsync(to_[copy].data(), from_[copy].data(), static_cast<size_t>(half_),
                          cudaMemcpyDeviceToDevice, stream),
          "copy");
  }

 private:
  int64_t half_;
  std::vector<DeviceArray<uint8_t>> from_, to_;
};

struct Result {
  Source source;
  Output output;
  int64_t m, k, bytes;
  std::vector<double> own, copy, empty;  // seconds, a round each

  // Of the copy's speed.
  double ratio() const { return median_ratio(copy, own); }
};

Result measure(const Options& options, const Stream& stream, int64_t l2_bytes, Source source,
               Output output, int64_t m, int64_t k) {
  const QuantizerCase own(options, source, output, m, k, l2_bytes);
  own.check_values();
  const CopyCase copy(own.bytes(), l2_bytes);
  std::vector<TimedLaunches> contenders;
  contenders.push_back(
      {graph_of(stream, kGraphSeconds, own.copies(), [&](int64_t i) { own.launch(i, stream); })});
  contenders.push_back(
      {graph_of(stream, kGraphSeconds, copy.copies(), [&](int64_t i) { copy.launch(i, stream); })});
  contenders.push_back(
      {graph_of(stream, kGraphSeconds, 1, [&](int64_t) { launch_empty(stream); })});
  run_interleaved(contenders, options.rounds);
  return {source,
          output,
          m,
          k,
          own.bytes(),
          contenders[0].seconds,
          contenders[1].seconds,
          contenders[2].seconds};
}

void print_head() {
  fmt::print("{:8} {:6} {:>6} {:>6} {:>10} {:>10} {:>10} {:>9} {:>14}\n", "rows", "to", "m", "k",
             "us", "copy us", "GB/s", "of copy", "over empty us");
}

void print_row(const Result& result) {
  const double own = median(result.own);
  fmt::print("{:8} {:6} {:6} {:6} {:10.2f} {:10.2f} {:10.0f} {:8.1f}% {:14.2f}\n",
             name(result.source), name(result.output), result.m, result.k, own * 1e6,
             median(result.copy) * 1e6, static_cast<double>(result.bytes) / own * 1e-9,
             100 * result.ratio(), (own - median(result.empty)) * 1e6);
}

Json to_json(const Result& result) {
  return {{"source", name(result.source)},
          {"output", name(result.output)},
          {"m", result.m},
          {"k", result.k},
          {"bytes", result.bytes},
          {"seconds", result.own},
          {"copy_seconds", result.copy},
          {"empty_seconds", result.empty},
          {"ratio_of_copy", result.ratio()}};
}

void run(const Options& options) {
  const Stream stream;
  const Gpu gpu = measure_gpu(stream);
  fmt::print("{}, {} multiprocessors, copies at {:.0f} GB/s; plan {}, medians of {} rounds\n",
             gpu.name, gpu.multiprocessors, gpu.copy_bytes_per_second * 1e-9, options.plan,
             options.rounds);
  print_head();
  Json json = {{"gpu", gpu.name},
               {"versions", gpu.versions},
               {"copy_bytes_per_second", gpu.copy_bytes_per_second},
               {"plan", options.plan},
               {"rounds", options.rounds},
               {"results", Json::array()}};
  for (const int64_t m : options.m) {
    for (const int64_t k : options.k) {
      for (const Source source : {Source::kPlain, Source::kRmsNorm, Source::kSwiglu}) {
        for (const Output output : {Output::kExact, Output::kCodes}) {
          const Result result = measure(options, stream, gpu.l2_bytes, source, output, m, k);
          print_row(result);
          json["results"].push_back(to_json(result));
        }
      }
    }
  }
  if (!options.json.empty()) write_file(options.json, json.dump(1) + "\n");
}

void add_options(CLI::App& app, Options& options) {
  std::vector<std::string> plans;
  for (const NamedPlan& plan : named_plans()) plans.emplace_back(plan.name);
  app.get_formatter()->column_width(24);
  app.add_option("--plan", options.plan, "Formats of the rows")
      ->option_text(fmt::format("NAME [{}]", options.plan))
      ->check(CLI::IsMember(plans));
  app.add_option("--m", options.m, "Rows")
      ->option_text(list_text(options.m))
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--k", options.k, "Channels, multiples of 32")
      ->option_text(list_text(options.k))
      ->delimiter(',')
      ->check(CLI::Range(int64_t{32}, int64_t{65536}))
      ->check([](const std::string& text) {
        return std::stoll(text) % mx::kBlockSize == 0 ? "" : text + " is not a multiple of 32";
      });
  app.add_option("--rounds", options.rounds, "Rounds after the warm-up")
      ->option_text(fmt::format("N [{}]", options.rounds))
      ->check(CLI::Range(1, 1000));
  app.add_option("--json", options.json, "Write all rounds here")->option_text("FILE");
}

}  // namespace
}  // namespace micromix::bench

int main(int argc, char** argv) {
  CLI::App app("The fused quantizers against copies of as many bytes, interleaved, on this GPU.",
               "bench_quantize_cuda");
  micromix::bench::Options options;
  micromix::bench::add_options(app, options);
  return micromix::bench::run_program(app, argc, argv, [&] { micromix::bench::run(options); });
}
