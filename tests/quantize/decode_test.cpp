// A further token allocates nothing: what a pass needs is kept in its Context.
#include <atomic>
#include <cstdlib>
#include <new>

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
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace micromix {
namespace {

// Allocations of 40 tokens after a prompt and a first token.
int64_t allocations_of_decode(const std::filesystem::path& path) {
  const Model model(path, kernels::cpu_backend());
  const std::vector<int32_t> ids = testing::some_tokens(49, model.config().vocab_size);
  Context context = model.make_context(49);
  const auto run = [&](std::span<const int32_t> tokens) {
    const auto hidden = model.forward(tokens, context);
    return model.logits(1, hidden.last(model.config().hidden_size).data(), context)[0];
  };
  run({ids.data(), 8});
  run({ids.data() + 8, 1});
  const int64_t before = allocations;
  for (int i = 9; i < 49; ++i) run({ids.data() + i, 1});
  return allocations - before;
}

TEST(Decode, AllocatesNothing) {
  EXPECT_EQ(allocations_of_decode(MICROMIX_DEMO_MODEL), 0);

  const testing::TemporaryFolder folder;
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = testing::statistics_of(weights);
  QuantizeOptions options = testing::options_for(AllocationMethod::kPaper);
  options.lm_head = mx::Format::kE2M1;
  quantize_model(weights, "xxh3:1", &statistics, options, folder / "mixed", {}, nullptr);
  EXPECT_EQ(allocations_of_decode(folder / "mixed"), 0);
}

}  // namespace
}  // namespace micromix
