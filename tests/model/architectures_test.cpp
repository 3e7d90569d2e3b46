// Tiny random checkpoints of every architecture and feature against transformers
// (data/models/README.md says how they were made).
#include "micromix/base/file.h"
#include "tests/model/golden.h"

namespace micromix {
namespace {

class Architectures : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path model() const { return testing::data("models") / GetParam(); }
};

TEST_P(Architectures, LogitsEqualTransformers) {
  EXPECT_LE(testing::largest_logit_difference(Model(model()), model() / "logits.safetensors"),
            2e-3);
}

TEST_P(Architectures, GreedyContinuationEqualsTransformers) {
  testing::expect_golden_continuation(Model(model()), model());
}

INSTANTIATE_TEST_SUITE_P(Models, Architectures, testing::architectures(),
                         testing::architecture_name);

// Not every writer of safetensors pads the header.
TEST(Unaligned, TensorsAtOddAddressesAreRead) {
  const testing::TemporaryFolder folder;
  std::filesystem::copy(testing::data("models/qwen2"), folder / "model");
  std::string file = read_file(folder / "model/model.safetensors");
  ++file[0];  // the length of the header, little-endian; no carry: it was a multiple of 8
  const size_t header_end = 8 + static_cast<uint8_t>(file[0]) + 256 * static_cast<uint8_t>(file[1]);
  file.insert(header_end - 1, 1, ' ');
  testing::write_text(folder / "model/model.safetensors", file);
  EXPECT_LE(testing::largest_logit_difference(Model(folder / "model"),
                                              testing::data("models/qwen2/logits.safetensors")),
            2e-3);
}

// A copy of MODEL whose config.json is CONFIG.
void copy_with_config(const std::filesystem::path& model, const std::string& config,
                      const std::filesystem::path& to) {
  std::filesystem::create_directories(to);
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    std::filesystem::copy(entry.path(), to);
  }
  std::filesystem::copy_file(model / config, to / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
}

TEST(ConfigSpelling, OldAndNewAreTheSameModel) {
  const testing::TemporaryFolder folder;
  copy_with_config(testing::data("models/llama3-rope"), "config.old.json", folder / "model");
  EXPECT_LE(testing::largest_logit_difference(
                Model(folder / "model"), testing::data("models/llama3-rope/logits.safetensors")),
            2e-3);
}

TEST(SlidingWindow, LongerContextIsAnError) {
  const testing::TemporaryFolder folder;
  copy_with_config(testing::data("models/mistral"), "config.window.json", folder / "model");
  const Model model(folder / "model");
  EXPECT_EQ(testing::greedy(model, {1, 2, 3}, 14).size(), 14u);
  EXPECT_THAT(testing::error_of([&] {
                testing::greedy(model, {1, 2, 3}, 15);
              }),
              ::testing::HasSubstr("sliding_window of 16"));
}

}  // namespace
}  // namespace micromix
