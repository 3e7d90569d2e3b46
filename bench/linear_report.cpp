#include "bench/linear_report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#include "bench/onednn_matmul.h"

namespace micromix::bench {
namespace {

constexpr double kMilli = 1e3;  // seconds to milliseconds
constexpr double kGiga = 1e-9;

// Variables that choose instruction sets, where set.
std::string environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? "" : fmt::format(", {}={}", variable, value);
}

// What the product takes beside the making of its input.
std::vector<double> multiply_seconds(const LinearResult& result) {
  std::vector<double> seconds = result.own_seconds;
  for (size_t i = 0; i < seconds.size(); ++i) seconds[i] -= result.quantize_seconds[i];
  return seconds;
}

double read_rate(const ReadRounds& read) {
  return static_cast<double>(MemoryReads::kBytes) / median(read.seconds);
}

}  // namespace

double LinearResult::macs_per_second() const {
  return static_cast<double>(m) * static_cast<double>(n * k) / median(own_seconds);
}

double LinearResult::weight_bytes_per_second() const {
  return static_cast<double>(weight_bytes) / median(own_seconds);
}

double LinearResult::best_read_bytes_per_second() const {
  double best = 0;
  for (const ReadRounds& read : reads) best = std::max(best, read_rate(read));
  return best;
}

void print_machine(const Machine& machine, const std::string& backend, int rounds) {
  fmt::print("CPU       {}, threads {}, {:.2f} GHz (by dependent additions)\n", machine.cpu,
             machine.threads, machine.clock_hertz * kGiga);
  if (machine.vnni_one_thread) {
    fmt::print("vpdpbusd  {:.0f} GMAC/s on one thread, {:.0f} MAC per clock; {:.0f} GMAC/s on {}\n",
               *machine.vnni_one_thread * kGiga, *machine.vnni_one_thread / machine.clock_hertz,
               *machine.vnni_all_threads * kGiga, machine.threads);
  } else {
    fmt::print("vpdpbusd  none (no AVX512-VNNI)\n");
  }
  fmt::print("reads     {} MiB, GB/s:", MemoryReads::kBytes >> 20);
  const char* separator = " ";
  for (const Machine::Read& read : machine.reads) {
    fmt::print("{}{} {:.1f}", separator, read.way.name(), read.bytes_per_second * kGiga);
    separator = ", ";
  }
  fmt::print("\nbackend   {}{}\n", backend, environment("MICROMIX_CPU"));
  fmt::print("oneDNN    {}{}\n", onednn_version(), environment("ONEDNN_MAX_CPU_ISA"));
  fmt::print(
      "rounds    {} of at least {:.0f} ms, in turn; times are medians, ratios medians of each",
      rounds, kRoundSeconds * kMilli);
  fmt::print(
      " round's.\n          own = quantize (gathers, into an input that is kept) + multiply\n\n");
}

void print_table_head(const std::vector<std::string>& peers) {
  fmt::print("{:>11} {:>5} {:<6} {:>9} {:>9} {:>9}", "NxK", "M", "plan", "own ms", "quantize",
             "multiply");
  for (const std::string& peer : peers) fmt::print(" {:>9}", peer + " ms");
  for (const std::string& peer : peers) fmt::print(" {:>8}", peer + "/own");
  fmt::print(" {:>7} {:>6} {:>8}\n", "GMAC/s", "GB/s", "of reads");
}

void print_row(const LinearResult& result) {
  fmt::print("{:>11} {:>5} {:<6} {:>9.4f} {:>9.4f} {:>9.4f}",
             fmt::format("{}x{}", result.n, result.k), result.m, result.plan,
             median(result.own_seconds) * kMilli, median(result.quantize_seconds) * kMilli,
             median(multiply_seconds(result)) * kMilli);
  for (const PeerRounds& peer : result.peers) {
    if (peer.seconds.empty()) {
      fmt::print(" {:>9}", "-");
    } else {
      fmt::print(" {:>9.4f}", median(peer.seconds) * kMilli);
    }
  }
  for (const PeerRounds& peer : result.peers) {
    if (peer.seconds.empty()) {
      fmt::print(" {:>8}", "-");
    } else {
      fmt::print(" {:>8.3f}", median_ratio(peer.seconds, result.own_seconds));
    }
  }
  fmt::print(" {:>7.1f}", result.macs_per_second() * kGiga);
  if (result.reads.empty()) {
    fmt::print(" {:>6} {:>8}\n", "-", "-");
  } else {
    fmt::print(" {:>6.1f} {:>7.1f}%\n", result.weight_bytes_per_second() * kGiga,
               100 * result.weight_bytes_per_second() / result.best_read_bytes_per_second());
  }
  std::fflush(stdout);
}

Json to_json(const Machine& machine) {
  Json json = {{"cpu", machine.cpu},
               {"threads", machine.threads},
               {"clock_hertz", machine.clock_hertz},
               {"onednn", onednn_version()}};
  if (machine.vnni_one_thread) {
    json["vnni_macs_per_second"] = {{"one_thread", *machine.vnni_one_thread},
                                    {"all_threads", *machine.vnni_all_threads}};
    json["vnni_macs_per_clock"] = *machine.vnni_one_thread / machine.clock_hertz;
  }
  for (const Machine::Read& read : machine.reads) {
    json["read_bytes_per_second"][read.way.name()] = read.bytes_per_second;
  }
  for (const char* variable : {"MICROMIX_CPU", "ONEDNN_MAX_CPU_ISA"}) {
    if (const char* value = std::getenv(variable)) json["environment"][variable] = value;
  }
  return json;
}

Json to_json(const LinearResult& result) {
  Json json = {{"plan", result.plan},
               {"m", result.m},
               {"n", result.n},
               {"k", result.k},
               {"weight_bytes", result.weight_bytes},
               {"copies", result.copies},
               {"own_seconds", result.own_seconds},
               {"quantize_seconds", result.quantize_seconds},
               {"macs_per_second", result.macs_per_second()}};
  for (const PeerRounds& peer : result.peers) {
    if (peer.seconds.empty()) continue;
    json["onednn"][peer.name] = {{"implementation", peer.implementation},
                                 {"seconds", peer.seconds},
                                 {"ratio", median_ratio(peer.seconds, result.own_seconds)}};
  }
  if (!result.reads.empty()) {
    json["weight_bytes_per_second"] = result.weight_bytes_per_second();
    json["best_read_bytes_per_second"] = result.best_read_bytes_per_second();
    for (const ReadRounds& read : result.reads) json["reads"][read.way.name()] = read.seconds;
  }
  return json;
}

}  // namespace micromix::bench
