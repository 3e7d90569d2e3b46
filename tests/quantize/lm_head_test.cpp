// A quantized lm_head: of tied and untied models, from quantizing to running and exporting.
#include <cmath>

#include "micromix/base/file.h"
#include "micromix/checkpoint/export.h"
#include "micromix/checkpoint/names.h"
#include "micromix/kernels/cpu/backend.h"
#include "micromix/quantize/pipeline.h"
#include "micromix/quantize/planning.h"
#include "micromix/quantize/sensitivity.h"
#include "tests/quantize/quantized.h"

namespace micromix {
namespace {

namespace fs = std::filesystem;

using testing::logits_of;
using testing::options_for;
using testing::relative_difference;
using testing::statistics_of;

// Layers in E4M3, and the lm_head in FORMAT.
QuantizeOptions with_lm_head(std::optional<mx::Format> format) {
  QuantizeOptions options = options_for(AllocationMethod::kUniform);
  options.allocation.uniform = mx::Format::kE4M3;
  options.lm_head = format;
  return options;
}

QuantizeReport quantize(const ModelWeights& weights, const QuantizeOptions& options,
                        const fs::path& out, const OutputOptions& output = {}) {
  return quantize_model(weights, "xxh3:1", nullptr, options, out, output, nullptr);
}

// VALUES through the oracle and back.
std::vector<float> rounded(mx::Format format, std::span<const float> values) {
  std::vector<float> out;
  for (; !values.empty(); values = values.subspan(32)) {
    std::vector<uint8_t> codes(32);
    const uint8_t scale =
        mx::quantize_block(format, mx::ScaleRule::kRceil, values.first(32), codes);
    for (uint8_t code : codes) out.push_back(mx::dequantize(format, code, scale));
  }
  return out;
}

// A float tensor as BF16: the models are BF16 (qwen2), F16 and F32.
std::vector<float> in_bfloat16(const TensorView& tensor) {
  std::vector<float> values = to_floats(tensor);
  for (float& value : values) value = mx::to_float(mx::to_bfloat16(value));
  return values;
}

// A Llama of one layer whose hidden size 32 does not divide.
void write_narrow_model(const fs::path& path) {
  constexpr int64_t kHidden = 48, kIntermediate = 64, kVocab = 40;
  const std::vector<mx::BFloat16> ones(kHidden * kIntermediate, mx::to_bfloat16(1.0f));
  std::vector<TensorData> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    const int64_t count = shape.size() == 1 ? shape[0] : shape[0] * shape[1];
    tensors.push_back({name, DType::kBF16, std::move(shape),
                       std::as_bytes(std::span(ones)).first(count * sizeof(mx::BFloat16))});
  };
  add(names::kEmbedding, {kVocab, kHidden});
  add(names::kFinalNorm, {kHidden});
  add(names::layer(0) + ".input_layernorm.weight", {kHidden});
  add(names::layer(0) + ".post_attention_layernorm.weight", {kHidden});
  for (LinearRole role : kLinearRoles) {
    const int64_t n = input_of(role) == InputRole::kMlp ? kIntermediate : kHidden;
    const int64_t k = role == LinearRole::kDown ? kIntermediate : kHidden;
    add(names::linear(0, role) + ".weight", {n, k});
  }
  fs::create_directory(path);
  write_safetensors(path / "model.safetensors", tensors);
  testing::write_text(path / "config.json", Json{{"architectures", {"LlamaForCausalLM"}},
                                                 {"vocab_size", kVocab},
                                                 {"hidden_size", kHidden},
                                                 {"intermediate_size", kIntermediate},
                                                 {"num_hidden_layers", 1},
                                                 {"num_attention_heads", 2},
                                                 {"tie_word_embeddings", true},
                                                 {"max_position_embeddings", 64}}
                                                .dump());
}

// qwen2 and llama-linear-rope are tied, llama2 is not.
class LmHead : public ::testing::TestWithParam<const char*> {
 protected:
  LmHead() : weights_(testing::data("models") / GetParam()) {}

  ModelWeights weights_;
  testing::TemporaryFolder folder_;
};

TEST_P(LmHead, HoldsWhatTheOracleQuantizes) {
  const std::vector<float> source = to_floats(*weights_.lm_head.dense);
  for (mx::Format format : mx::kOperandFormats) {
    quantize(weights_, with_lm_head(format), folder_ / "out", {.force = true});
    const ModelWeights quantized(folder_ / "out");
    EXPECT_FALSE(quantized.config.tie_word_embeddings);
    EXPECT_THAT(quantized.config.quantization->modules_to_not_convert, ::testing::IsEmpty());
    const LinearWeights& lm_head = quantized.lm_head;
    ASSERT_EQ(lm_head.segments.size(), 1u);
    EXPECT_EQ(lm_head.segments[0].format, format);
    EXPECT_TRUE(lm_head.plan.permutation.empty());
    for (int64_t row = 0; row < lm_head.n; ++row) {
      testing::expect_oracle_row(lm_head, row,
                                 std::span(source).subspan(row * lm_head.k, lm_head.k),
                                 mx::ScaleRule::kRceil);
    }
    EXPECT_EQ(quantized.embedding->dtype, DType::kBF16);
    EXPECT_EQ(to_floats(*quantized.embedding), in_bfloat16(*weights_.embedding));
  }
}

TEST_P(LmHead, CountsAmongTheQuantizedLinears) {
  const QuantizeReport report =
      quantize(weights_, with_lm_head(mx::Format::kE2M1), folder_ / "out");
  double layers = 0;
  for (const LayerWeights& layer : weights_.layers) {
    for (const LinearWeights& linear : layer.linears) {
      layers += static_cast<double>(linear.n * linear.k);
    }
  }
  const auto lm_head = static_cast<double>(weights_.lm_head.n * weights_.lm_head.k);
  EXPECT_EQ(report.after.layer_bits, 8.25);
  EXPECT_DOUBLE_EQ(report.after.average_bits,
                   (8.25 * layers + 4.25 * lm_head) / (layers + lm_head));
  const ModelWeights quantized(folder_ / "out");
  EXPECT_EQ(quantized.config.quantization->average_bits, report.after.average_bits);
  // The room it takes on the disk is foreseen.
  const auto predicted = [&](std::optional<mx::Format> format) {
    return predicted_bytes(plan_model(weights_, nullptr, with_lm_head(format), nullptr), weights_);
  };
  const int64_t dense_bytes =
      weights_.config.tie_word_embeddings ? 0 : 2 * weights_.lm_head.n * weights_.lm_head.k;
  EXPECT_EQ(predicted(mx::Format::kE2M1) - predicted(std::nullopt),
            quantized.lm_head.stored_bytes() - dense_bytes);
}

// Both backends round the same exact sums to FP32 and then to BF16, 2^-8 apart at most; codes of
// the input that the norm's last bit moves add to that.
TEST_P(LmHead, RunsOnBothBackends) {
  quantize(weights_, with_lm_head(mx::Format::kE2M1), folder_ / "out");
  const kernels::Backend& reference = kernels::reference_backend();
  const std::vector<float> expected = logits_of(folder_ / "out");
  for (float logit : expected) ASSERT_TRUE(std::isfinite(logit));
  const std::vector<float> logits = logits_of(folder_ / "out", reference, kernels::cpu_backend());
  EXPECT_LT(relative_difference(logits, expected), 0x1p-7);
  // E2M1 is off by a fifth of itself at most where it is normal, as weight and as activation.
  const std::vector<float> whole = logits_of(weights_.store.model());
  EXPECT_LT(relative_difference(expected, whole), std::sqrt(2.0) * 0.2);
  EXPECT_GT(relative_difference(expected, whole), 0.02);
}

TEST_P(LmHead, IsExportedAsATensorOfItsOwn) {
  QuantizeOptions options = with_lm_head(mx::Format::kE2M1);
  for (auto& [weight, activation] : options.activation_formats) activation = std::nullopt;
  quantize(weights_, options, folder_ / "out");
  export_bfloat16(ModelWeights(folder_ / "out"), folder_ / "exported", {}, nullptr);
  const ModelWeights exported(folder_ / "exported");
  EXPECT_FALSE(exported.config.quantization.has_value());
  EXPECT_FALSE(exported.config.tie_word_embeddings);
  EXPECT_EQ(to_floats(*exported.lm_head.dense),
            rounded(mx::Format::kE2M1, to_floats(*weights_.lm_head.dense)));
  EXPECT_EQ(to_floats(*exported.embedding), in_bfloat16(*weights_.embedding));
  EXPECT_LT(relative_difference(logits_of(folder_ / "exported"), logits_of(folder_ / "out")), 0.03);
}

TEST_P(LmHead, StaysUnlessAskedForAndWhereKept) {
  QuantizeOptions kept = with_lm_head(mx::Format::kE2M1);
  kept.keep = {"lm_head"};
  for (const QuantizeOptions& options : {with_lm_head(std::nullopt), kept}) {
    const QuantizeReport report = quantize(weights_, options, folder_ / "out", {.force = true});
    EXPECT_EQ(report.after.average_bits, 8.25);
    const ModelWeights quantized(folder_ / "out");
    EXPECT_EQ(quantized.config.tie_word_embeddings, weights_.config.tie_word_embeddings);
    EXPECT_THAT(quantized.config.quantization->modules_to_not_convert,
                ::testing::ElementsAre("lm_head"));
    EXPECT_EQ(to_floats(*quantized.lm_head.dense), in_bfloat16(*weights_.lm_head.dense));
  }
}

// The budget is spent on the layers, whatever the lm_head is.
TEST_P(LmHead, IsOutsideTheBudget) {
  Statistics statistics = statistics_of(weights_, 2, 16);
  measure_sensitivities(weights_, statistics, nullptr);
  QuantizeOptions options = options_for(AllocationMethod::kBudget);
  options.allocation.bits = 5.5;
  double layer_bits = 0;
  for (std::optional<mx::Format> format : {std::optional<mx::Format>(), {mx::Format::kE4M3}}) {
    options.lm_head = format;
    const QuantizeReport report = quantize_model(weights_, "xxh3:1", &statistics, options,
                                                 folder_ / "out", {.force = true}, nullptr);
    EXPECT_LE(report.after.layer_bits, 5.5);
    if (format) {
      EXPECT_EQ(report.after.layer_bits, layer_bits);
      EXPECT_GT(report.after.average_bits, layer_bits);
    }
    layer_bits = report.after.layer_bits;
  }
}

TEST_P(LmHead, IsResumedInTheSameFormatOnly) {
  const auto interrupt = [](int64_t, int64_t) { throw std::runtime_error("interrupted"); };
  EXPECT_THROW(quantize_model(weights_, "xxh3:1", nullptr, with_lm_head(mx::Format::kE2M1),
                              folder_ / "out", {}, interrupt),
               std::runtime_error);
  const auto resume = [&](std::optional<mx::Format> format) {
    quantize(weights_, with_lm_head(format), folder_ / "out", {.resume = true});
  };
  EXPECT_THAT(testing::error_of([&] { resume(mx::Format::kE4M3); }),
              ::testing::HasSubstr("options.lm_head: found \"e4m3\", expected \"e2m1\", as in"));
  EXPECT_THAT(testing::error_of([&] { resume(std::nullopt); }),
              ::testing::HasSubstr("options.lm_head: found \"bf16\""));
  resume(mx::Format::kE2M1);
  quantize(weights_, with_lm_head(mx::Format::kE2M1), folder_ / "straight");
  for (const auto& entry : fs::directory_iterator(folder_ / "straight")) {
    EXPECT_EQ(read_file(entry.path()),
              read_file(folder_ / "out" / entry.path().filename().string()));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LmHead, ::testing::Values("llama-linear-rope", "llama2", "qwen2"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(NarrowLmHead, StaysTied) {
  const testing::TemporaryFolder folder;
  write_narrow_model(folder / "model");
  const ModelWeights weights(folder / "model");
  EXPECT_THAT(quantize(weights, with_lm_head(mx::Format::kE2M1), folder / "out").not_divisible,
              ::testing::Contains("lm_head"));
  const ModelWeights quantized(folder / "out");
  EXPECT_TRUE(quantized.config.tie_word_embeddings);
  EXPECT_THAT(quantized.config.quantization->modules_to_not_convert,
              ::testing::Contains("lm_head"));
  EXPECT_TRUE(quantized.layers[0][LinearRole::kDown].quantized());
  // Where it was to stay BF16 anyway, nothing is said of it.
  EXPECT_THAT(
      quantize(weights, with_lm_head(std::nullopt), folder / "out", {.force = true}).not_divisible,
      ::testing::Not(::testing::Contains("lm_head")));
}

}  // namespace
}  // namespace micromix
