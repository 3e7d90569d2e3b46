// What a prepared weight of the CPU backend keeps in memory: its packed bytes, once. Slow in
// name only: under sanitizers, which leave slow cases out, their memory would be counted too.
#include <fstream>
#include <memory>

#include <malloc.h>

#include "micromix/checkpoint/safetensors.h"
#include "micromix/kernels/cpu/backend.h"
#include "tests/kernels/random_linear.h"
#include "tests/kernels/repeated_bytes.h"
#include "tests/testing.h"

namespace micromix::kernels {
namespace {

using testing::Random;
using testing::RepeatedBytes;
using testing::SegmentShape;

// The field NAME, in KiB, of /proc/self/FILE, in bytes.
int64_t process_bytes(const std::string& file, const std::string& name) {
  std::ifstream in("/proc/self/" + file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  ADD_FAILURE() << file << " has no " << name;
  return 0;
}

// From here on VmHWM is the peak.
void forget_peak() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5" << std::flush;
  ASSERT_TRUE(out.good());
}

// A weight [n, k] on disk, without its bytes in this process's own memory.
void write_weight(const std::filesystem::path& path, int64_t n,
                  const std::vector<SegmentShape>& shapes) {
  Random random(1);
  std::vector<std::byte> codes(1 << 20), scales(1 << 20);
  for (std::byte& byte : codes) byte = static_cast<std::byte>(random());
  for (std::byte& byte : scales) byte = static_cast<std::byte>(124 + random() % 7);
  std::vector<std::unique_ptr<RepeatedBytes>> repeated;
  std::vector<TensorData> tensors;
  const auto add = [&](const std::string& name, std::span<const std::byte> period, int64_t width) {
    repeated.push_back(std::make_unique<RepeatedBytes>(period, n * width));
    tensors.push_back({name, DType::kU8, {n, width}, repeated.back()->bytes()});
  };
  for (size_t i = 0; i < shapes.size(); ++i) {
    add(fmt::format("codes{}", i), codes, mx::packed_bytes(shapes[i].weight, shapes[i].channels));
    add(fmt::format("scales{}", i), scales, shapes[i].channels / mx::kBlockSize);
  }
  write_safetensors(path, tensors);
}

// Prepares a weight [N, sum of channels] from a file and expects at most RATIO times its bytes to
// stay, and no more than them and the file's pages meanwhile.
void expect_resident(int64_t n, const std::vector<SegmentShape>& shapes, double ratio) {
  const testing::TemporaryFolder folder;
  write_weight(folder / "weight.safetensors", n, shapes);
  // Threads and their stacks belong to no weight.
  Random random(2);
  cpu_backend().prepare(
      testing::random_weight(random, 64, {{mx::Format::kE2M1, std::nullopt, 64}}, 127, 127, false)
          .weight,
      {});
  const SafetensorsFile file(folder / "weight.safetensors");
  MixedWeight weight;
  weight.n = n;
  int64_t packed = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto codes = file.at(fmt::format("codes{}", i)).octets();
    const auto scales = file.at(fmt::format("scales{}", i)).octets();
    weight.segments.push_back({shapes[i].weight, shapes[i].channels, codes, scales});
    weight.k += shapes[i].channels;
    packed += static_cast<int64_t>(codes.size() + scales.size());
  }

  ::malloc_trim(0);  // or freed memory that is still resident would be taken first
  const int64_t anonymous = process_bytes("smaps_rollup", "Anonymous");
  const int64_t resident = process_bytes("smaps_rollup", "Rss");
  forget_peak();
  const auto linear = cpu_backend().prepare(weight, {});
  const int64_t peak = process_bytes("status", "VmHWM") - resident;
  for (const auto& [name, tensor] : file.tensors()) tensor.release();
  const int64_t kept = process_bytes("smaps_rollup", "Anonymous") - anonymous;

  const auto file_bytes = static_cast<int64_t>(std::filesystem::file_size(file.path()));
  constexpr int64_t kSlack = 1 << 20;
  EXPECT_GE(kept, packed);  // or something else was measured
  EXPECT_LE(static_cast<double>(kept), ratio * static_cast<double>(packed));
  EXPECT_LE(peak, packed + file_bytes + kSlack);
}

TEST(SlowCpuMemory, ChannelGroupsOf128) {
  expect_resident(
      8192, {{mx::Format::kE2M1, std::nullopt, 5120}, {mx::Format::kE2M3, std::nullopt, 3072}},
      1.05);
}

// Segments of odd numbers of blocks.
TEST(SlowCpuMemory, ChannelGroupsOf32) {
  expect_resident(
      8192, {{mx::Format::kE2M1, std::nullopt, 5152}, {mx::Format::kE2M3, std::nullopt, 3040}},
      1.10);
}

}  // namespace
}  // namespace micromix::kernels
