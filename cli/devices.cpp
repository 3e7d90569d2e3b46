// micromix devices: what this machine can run models on.
#include "micromix/kernels/cuda/devices.h"

#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "commands.h"
#include "micromix/kernels/cpu/instruction_set.h"

namespace micromix::cli {
namespace {

using kernels::cuda::GpuInfo;

void print_cpu() {
  const auto& chosen = kernels::cpu::chosen_kernels();
  fmt::print("cpu      {} kernels", chosen.name);
  const char* separator = "; also ";
  for (const kernels::cpu::Kernels* each : kernels::cpu::supported_kernels()) {
    if (each == &chosen) continue;
    fmt::print("{}{}", separator, each->name);
    separator = ", ";
  }
  fmt::print("\n");
}

std::string gibibytes(int64_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) * 0x1p-30);
}

// Each product with the formats that it multiplies.
void print_products(const GpuInfo& gpu) {
  std::vector<std::optional<mx::Format>> activations(mx::kOperandFormats.begin(),
                                                     mx::kOperandFormats.end());
  activations.emplace_back(std::nullopt);
  for (mx::Format weight : mx::kOperandFormats) {
    std::map<std::string_view, std::vector<std::string_view>> names;  // of activations, by product
    for (const auto& activation : activations) {
      names[kernels::cuda::product_of(gpu, weight, activation)].push_back(
          activation ? mx::name(*activation) : "bf16");
    }
    for (const auto& [product, with] : names) {
      fmt::print("         {} weights x {}: {}\n", mx::name(weight), fmt::join(with, ", "),
                 product);
    }
  }
}

void print_gpu(const GpuInfo& gpu) {
  fmt::print("cuda:{}   {}", gpu.index, gpu.name.empty() ? "GPU" : gpu.name);
  if (!gpu.problem.empty()) {
    fmt::print(": cannot be used: {}\n", gpu.problem);
    return;
  }
  fmt::print(", compute capability {}.{}, {} multiprocessors, {} of {} free\n", gpu.major,
             gpu.minor, gpu.multiprocessors, gibibytes(gpu.free_bytes), gibibytes(gpu.total_bytes));
  print_products(gpu);
}

void run() {
  print_cpu();
  const std::vector<GpuInfo> gpus = kernels::cuda::list_gpus();
  if (gpus.empty()) {
    fmt::print("cuda     none: {}\n", kernels::cuda::why_no_gpus());
    return;
  }
  fmt::print("cuda     {}\n", kernels::cuda::cuda_versions());
  for (const GpuInfo& gpu : gpus) print_gpu(gpu);
}

}  // namespace

void add_devices(CLI::App& app) {
  app.add_subcommand("devices", "The CPU kernels and GPUs of this machine.")->callback(run);
}

}  // namespace micromix::cli
