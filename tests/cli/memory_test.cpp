// Memory stays layer by layer: a generated checkpoint of 0.8 GB is calibrated, quantized and
// exported in a fraction of its size.
#include <random>

#include <sys/resource.h>

#include "micromix/checkpoint/names.h"
#include "micromix/checkpoint/safetensors.h"
#include "micromix/mx/bfloat16.h"
#include "tests/cli/command.h"

namespace micromix {
namespace {

constexpr int64_t kLayers = 24;
constexpr int64_t kHidden = 1024;
constexpr int64_t kIntermediate = 4096;
constexpr int64_t kVocab = 4096;

// A Llama checkpoint with random weights, one shard a layer.
void write_model(const std::filesystem::path& path) {
  std::filesystem::create_directories(path);
  std::mt19937 random(1);
  std::vector<mx::BFloat16> noise(kIntermediate * kHidden);
  for (mx::BFloat16& value : noise) {
    value = mx::to_bfloat16(0.02f * (static_cast<float>(random() % 2001) / 1000.0f - 1.0f));
  }
  const auto tensor = [&](const std::string& name, std::vector<int64_t> shape) {
    const int64_t count = shape.size() == 1 ? shape[0] : shape[0] * shape[1];
    return TensorData{name, DType::kBF16, shape,
                      std::as_bytes(std::span(noise)).first(count * sizeof(mx::BFloat16))};
  };
  Json map = Json::object();
  const auto write = [&](const std::string& file, const std::vector<TensorData>& tensors) {
    write_safetensors(path / file, tensors);
    for (const TensorData& each : tensors) map[each.name] = file;
  };
  write("outer.safetensors",
        {tensor(names::kEmbedding, {kVocab, kHidden}), tensor(names::kFinalNorm, {kHidden})});
  for (int64_t i = 0; i < kLayers; ++i) {
    std::vector<TensorData> tensors;
    for (LinearRole role : kLinearRoles) {
      const bool wide_output = input_of(role) == InputRole::kMlp;
      const bool wide_input = role == LinearRole::kDown;
      tensors.push_back(
          tensor(names::linear(i, role) + ".weight",
                 {wide_output ? kIntermediate : kHidden, wide_input ? kIntermediate : kHidden}));
    }
    tensors.push_back(tensor(names::layer(i) + ".input_layernorm.weight", {kHidden}));
    tensors.push_back(tensor(names::layer(i) + ".post_attention_layernorm.weight", {kHidden}));
    write(fmt::format("layer-{}.safetensors", i), tensors);
  }
  testing::write_text(path / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  testing::write_text(path / "config.json", Json{{"architectures", {"LlamaForCausalLM"}},
                                                 {"vocab_size", kVocab},
                                                 {"hidden_size", kHidden},
                                                 {"intermediate_size", kIntermediate},
                                                 {"num_hidden_layers", kLayers},
                                                 {"num_attention_heads", 16},
                                                 {"tie_word_embeddings", true},
                                                 {"max_position_embeddings", 2048}}
                                                .dump());
  std::filesystem::copy_file(std::filesystem::path(MICROMIX_DEMO_MODEL) / "tokenizer.json",
                             path / "tokenizer.json");
}

// Peak resident bytes of the command with these arguments.
int64_t peak_memory(const std::vector<std::string>& arguments) {
  int status = 0;
  rusage usage{};
  ::wait4(testing::start_command(arguments), &status, 0, &usage);
  EXPECT_EQ(status, 0) << arguments.front();
  return int64_t{usage.ru_maxrss} * 1024;
}

TEST(SlowMemory, StaysLayerByLayer) {
  const testing::TemporaryFolder folder;
  const std::string model = (folder / "model").string();
  write_model(model);
  int64_t size = 0;
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    size += static_cast<int64_t>(entry.file_size());
  }
  ASSERT_GT(size, int64_t{800} * 1000 * 1000);
  const std::string text = MICROMIX_DEMO_DATA "/wikitext-2/valid.txt";
  const std::string stats = (folder / "stats").string();
  const std::string out = (folder / "out").string();
  // A layer is 34 MB, and so are its BF16 copies in an export; the rest is activations and buffers.
  const int64_t limit = size / 4;
  EXPECT_LT(peak_memory({"calibrate", model, "--data", text, "-o", stats, "--samples", "4",
                         "--length", "128"}),
            limit);
  EXPECT_LT(peak_memory({"quantize", model, "--stats", stats, "-o", out}), limit);
  EXPECT_LT(peak_memory({"export", out, "--to", "bf16", "-o", out + "-bf16"}), limit);
}

}  // namespace
}  // namespace micromix
