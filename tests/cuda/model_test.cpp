// Whole models on a GPU against transformers and the CPU.
#include "micromix/eval/perplexity.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/kernels/cuda/backend.h"
#include "micromix/model/text.h"
#include "micromix/quantize/pipeline.h"
#include "tests/model/golden.h"
#include "tests/quantize/quantized.h"

namespace micromix {
namespace {

using kernels::cuda_backend;
using testing::relative_difference;

class CudaArchitectures : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path model() const { return testing::data("models") / GetParam(); }
};

// Goldens are FP32. The CPU's BF16 operands alone cost up to 0.014 of these models' logits, and
// rounding its outputs to BF16 as the GPU does makes that 0.015.
TEST_P(CudaArchitectures, LogitsAreThoseOfTransformers) {
  const Model model_(model(), cuda_backend());
  const SafetensorsFile golden(model() / "logits.safetensors");
  const TensorView& ids = golden.at("input_ids");
  std::vector<float> found;
  for (int64_t row = 0; row < ids.shape[0]; ++row) {
    Context context = model_.make_context(ids.shape[1]);
    model_.forward(testing::row_of_ids(ids, row), context);
    const auto logits = model_.logits(0, ids.shape[1], context);
    found.insert(found.end(), logits.begin(), logits.end());
  }
  const auto expected = golden.at("logits").values<float>();
  EXPECT_LE(relative_difference(found, {expected.begin(), expected.end()}), 0.03);
}

TEST_P(CudaArchitectures, GreedyContinuationEqualsTransformers) {
  testing::expect_golden_continuation(Model(model(), cuda_backend()), model());
}

INSTANTIATE_TEST_SUITE_P(Models, CudaArchitectures, testing::architectures(),
                         testing::architecture_name);

// Every format in one model, an lm_head of its own, folded and plain permutations; a prompt longer
// than a chunk. Rounding to four bits makes much of little: sums in another order move an element
// to its neighbour, and that the next layer's. So the GPU may be as far from the reference as
// another backend that also attends in BF16, and no more than half as far again.
TEST(CudaModel, QuantizedLogitsAreAsNearTheReferenceAsTheCpus) {
  const testing::TemporaryFolder folder;
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = testing::statistics_of(weights);
  QuantizeOptions options = testing::options_for(AllocationMethod::kPaper);
  options.lm_head = mx::Format::kE4M3;
  quantize_model(weights, "xxh3:1", &statistics, options, folder / "paper", {}, nullptr);
  const std::vector<int32_t> ids = testing::some_tokens(600, weights.config.vocab_size);
  const auto last_logits = [&](const kernels::Backend& backend) {
    const Model model(folder / "paper", backend);
    Context context = model.make_context(600);
    const auto logits = model.next_logits(ids, context);
    return std::vector<float>(logits.begin(), logits.end());
  };
  const std::vector<float> reference = last_logits(kernels::reference_backend());
  EXPECT_LE(relative_difference(last_logits(cuda_backend()), reference),
            1.5 * relative_difference(last_logits(kernels::cpu_backend()), reference));
}

// A prompt at once and token by token, but for BF16.
TEST(CudaModel, CacheContinuesWhereAPromptEnded) {
  const Model model(MICROMIX_DEMO_MODEL, cuda_backend());
  const std::vector<int32_t> ids = testing::some_tokens(40, model.config().vocab_size);
  Context whole = model.make_context(40), stepwise = model.make_context(40);
  model.forward(ids, whole);
  std::vector<float> expected, found;
  for (int64_t i = 0; i < 40; ++i) {
    const auto step = model.next_logits({&ids[i], 1}, stepwise);
    const auto row = model.logits(i, 1, whole);
    found.insert(found.end(), step.begin(), step.end());
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_LE(relative_difference(found, expected), 0.03);
}

}  // namespace
}  // namespace micromix
