// ggml_matmul TYPE M N K THREADS: GMAC/s of ggml's product of F32 activations [M, K] (quantized by
// ggml inside the product) with a weight [N, K] of TYPE (q4_0, mxfp4), the median of 7 rounds.
//
// The weight lies where llama.cpp would put it: repacked, where ggml has a repacking for this CPU
// and shape. Built by llama_cpp.sh against the ggml that it unpacks; uses its public headers only.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

constexpr int kRounds = 7;
constexpr double kRoundSeconds = 0.1;

ggml_type parse_type(const std::string& name) {
  if (name == "q4_0") return GGML_TYPE_Q4_0;
  if (name == "mxfp4") return GGML_TYPE_MXFP4;
  std::fprintf(stderr, "ggml_matmul: found type '%s', expected q4_0 or mxfp4\n", name.c_str());
  std::exit(2);
}

std::vector<float> normal(int64_t count) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> draw;
  std::vector<float> values(count);
  for (float& value : values) value = draw(random);
  return values;
}

// A context of descriptions; data lie in backend buffers.
ggml_context* descriptions() {
  return ggml_init({64 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true});
}

// The kinds of memory for weights, best first, the plain one last.
std::vector<ggml_backend_buffer_type_t> weight_buffers(ggml_backend_dev_t device) {
  std::vector<ggml_backend_buffer_type_t> types;
  const auto extra =
      reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(
          ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  for (auto* type = extra != nullptr ? extra(device) : nullptr; type != nullptr && *type != nullptr;
       ++type) {
    types.push_back(*type);
  }
  types.push_back(ggml_backend_dev_buffer_type(device));
  return types;
}

// Allocates WEIGHT in the best memory from which DEVICE can compute PRODUCT, and returns its name.
const char* place(ggml_backend_dev_t device, ggml_tensor* weight, const ggml_tensor* product) {
  for (ggml_backend_buffer_type_t type : weight_buffers(device)) {
    const size_t bytes = ggml_backend_buft_get_alloc_size(type, weight);
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(type, bytes);
    weight->buffer = buffer;  // what the question is about
    const bool supported = ggml_backend_dev_supports_op(device, product);
    weight->buffer = nullptr;
    if (supported) {
      ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
      ggml_backend_tensor_alloc(buffer, weight, ggml_backend_buffer_get_base(buffer));
      return ggml_backend_buft_name(type);
    }
    ggml_backend_buffer_free(buffer);
  }
  std::fprintf(stderr, "ggml_matmul: no memory for this product\n");
  std::exit(1);
}

void set_weight(ggml_tensor* weight, int64_t n, int64_t k) {
  const std::vector<float> values = normal(n * k);
  std::vector<uint8_t> blocks(ggml_nbytes(weight));
  ggml_quantize_chunk(weight->type, values.data(), blocks.data(), 0, n, k, nullptr);
  ggml_backend_tensor_set(weight, blocks.data(), 0, blocks.size());  // repacks
}

double seconds_per_product(ggml_backend_t backend, ggml_cgraph* graph) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  double elapsed = 0;
  int products = 0;
  while (elapsed < kRoundSeconds) {
    ggml_backend_graph_compute(backend, graph);
    ++products;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return elapsed / products;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "ggml_matmul TYPE M N K THREADS\n");
    return 2;
  }
  const ggml_type type = parse_type(argv[1]);
  const int64_t m = std::atoll(argv[2]);
  const int64_t n = std::atoll(argv[3]);
  const int64_t k = std::atoll(argv[4]);

  ggml_backend_t backend = ggml_backend_cpu_init();
  ggml_backend_cpu_set_n_threads(backend, std::atoi(argv[5]));
  ggml_context* weights = descriptions();
  ggml_context* values = descriptions();
  ggml_tensor* weight = ggml_new_tensor_2d(weights, type, k, n);
  ggml_tensor* x = ggml_new_tensor_2d(values, GGML_TYPE_F32, k, m);
  ggml_tensor* y = ggml_mul_mat(values, weight, x);
  const char* where = place(ggml_backend_get_device(backend), weight, y);
  ggml_backend_alloc_ctx_tensors(values, backend);
  set_weight(weight, n, k);
  const std::vector<float> activations = normal(m * k);
  ggml_backend_tensor_set(x, activations.data(), 0, ggml_nbytes(x));
  ggml_cgraph* graph = ggml_new_graph(values);
  ggml_build_forward_expand(graph, y);

  std::vector<double> seconds;
  seconds_per_product(backend, graph);  // warms up
  for (int round = 0; round < kRounds; ++round) {
    seconds.push_back(seconds_per_product(backend, graph));
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  const double macs = static_cast<double>(m) * static_cast<double>(n * k);
  std::printf("%.2f %s\n", macs / seconds[kRounds / 2] * 1e-9, where);
  return 0;
}
