// A further token allocates nothing: what a pass needs is kept in its Context.
// AddressSanitizer has these operators for itself.
#if !defined(__SANITIZE_ADDRESS__)
#include <atomic>
#include <cstdlib>
#include <new>

#include <omp.h>

#include "micromix/kernels/cpu/backend.h"
#include "micromix/model/model.h"
#include "micromix/quantize/pipeline.h"
#include "tests/quantize/demo.h"

namespace {

std::atomic<int64_t> allocations = 0;

}  // namespace

void* operator new(size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto align = static_cast<size_t>(alignment);
  if (void* const memory = std::aligned_alloc(align, (size + align - 1) / align * align)) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace micromix {
namespace {

// Allocations of 40 tokens after a prompt and a first token.
int64_t allocations_of_decode(const std::filesystem::path& path) {
  const Model model(path, kernels::cpu_backend());
  const std::vector<int32_t> ids = testing::some_tokens(49, model.config().vocab_size);
  Context context = model.make_context(49);
  const auto run = [&](std::span<const int32_t> tokens) { model.next_logits(tokens, context); };
  run({ids.data(), 8});
  run({ids.data() + 8, 1});
  const int64_t before = allocations;
  for (int i = 9; i < 49; ++i) run({ids.data() + i, 1});
  return allocations - before;
}

TEST(Decode, AllocatesNothing) {
  // A thread makes its buffers when it first gets work, which may be late: only one here.
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  EXPECT_EQ(allocations_of_decode(MICROMIX_DEMO_MODEL), 0);

  const testing::TemporaryFolder folder;
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = testing::statistics_of(weights);
  QuantizeOptions options = testing::options_for(AllocationMethod::kPaper);
  options.lm_head = mx::Format::kE2M1;
  quantize_model(weights, "xxh3:1", &statistics, options, folder / "mixed", {}, nullptr);
  EXPECT_EQ(allocations_of_decode(folder / "mixed"), 0);
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace micromix

#endif
