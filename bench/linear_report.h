// What bench_linear prints and writes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "bench/timing.h"
#include "micromix/base/json.h"

namespace micromix::bench {

// The machine as measured once, at the start.
struct Machine {
  struct Read {
    MemoryReads::Way way;
    double bytes_per_second;
  };
  std::string cpu;
  int threads;
  double clock_hertz;
  std::optional<double> vnni_one_thread, vnni_all_threads;  // MAC/s
  std::vector<Read> reads;
};

// Seconds a product, one a round.
struct PeerRounds {
  std::string name;
  std::string implementation;
  std::vector<double> seconds;  // empty: oneDNN has none
};
struct ReadRounds {
  MemoryReads::Way way;
  std::vector<double> seconds;
};

struct LinearResult {
  std::string plan;
  int64_t m, n, k;
  int64_t weight_bytes;  // codes and scales
  int64_t copies;        // of the weight, used in turn
  std::vector<double> own_seconds;
  std::vector<double> quantize_seconds;
  std::vector<PeerRounds> peers;
  std::vector<ReadRounds> reads;  // where weights come from memory

  double macs_per_second() const;
  double weight_bytes_per_second() const;
  // Of the fastest way, each way at its median.
  double best_read_bytes_per_second() const;
};

void print_machine(const Machine& machine, const std::string& backend, int rounds);
void print_table_head(const std::vector<std::string>& peers);
void print_row(const LinearResult& result);

Json to_json(const Machine& machine);
Json to_json(const LinearResult& result);

}  // namespace micromix::bench
