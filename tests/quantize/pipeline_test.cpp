// Calibrate, quantize, load, export, on the demo model and on tiny checkpoints.
#include "micromix/quantize/pipeline.h"

#include <cmath>

#include "micromix/base/file.h"
#include "micromix/checkpoint/export.h"
#include "micromix/checkpoint/names.h"
#include "micromix/model/model.h"
#include "micromix/quantize/sensitivity.h"
#include "tests/quantize/demo.h"
#include "tests/quantize/quantized.h"

namespace micromix {
namespace {

namespace fs = std::filesystem;

using testing::logits_of;
using testing::options_for;
using testing::relative_difference;
using testing::some_tokens;
using testing::statistics_of;

QuantizeReport quantize(const ModelWeights& weights, const Statistics& statistics,
                        const QuantizeOptions& options, const fs::path& out,
                        const OutputOptions& output = {}) {
  return quantize_model(weights, "xxh3:1", &statistics, options, out, output, nullptr);
}

TEST(Statistics, SurviveTheirFile) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  Statistics saved = statistics_of(weights);
  saved.layers[1][2].fp4_kl = 0.25;
  const testing::TemporaryFolder folder;
  save_statistics(folder / "stats", saved);
  const Statistics loaded = load_statistics(folder / "stats", weights.config, "xxh3:1");
  EXPECT_EQ(loaded.token_ids, saved.token_ids);
  EXPECT_EQ(loaded.text_hash, saved.text_hash);
  EXPECT_EQ(loaded.layers[1][2].fp4_kl, 0.25);
  EXPECT_FALSE(loaded.layers[1][1].fp4_kl.has_value());
  for (int64_t layer = 0; layer < weights.config.num_layers; ++layer) {
    for (InputRole role : kInputRoles) {
      EXPECT_EQ(loaded.at(layer, role).mean_abs, saved.at(layer, role).mean_abs);
      EXPECT_EQ(loaded.at(layer, role).second_moment, saved.at(layer, role).second_moment);
      EXPECT_EQ(loaded.at(layer, role).fraction_below, saved.at(layer, role).fraction_below);
      EXPECT_EQ(loaded.at(layer, role).row_count, saved.at(layer, role).row_count);
    }
  }
  EXPECT_THAT(
      testing::error_of([&] { load_statistics(folder / "stats", weights.config, "xxh3:2"); }),
      ::testing::HasSubstr("model_hash"));
}

TEST(Calibration, ShortTextIsAnError) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  EXPECT_THAT(testing::error_of([&] {
                calibrate(weights, some_tokens(63, 4096), {.samples = 1, .length = 64}, nullptr);
              }),
              ::testing::HasSubstr("63 tokens, under one sample of 64"));
}

TEST(Calibration, MomentsAreThoseOfTheInputs) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = statistics_of(weights, 1, 128);
  const InputStatistics& input = statistics.at(0, InputRole::kAttention);
  ASSERT_EQ(input.row_count, 128);  // every row is kept, so the sums can be repeated
  for (int64_t j : {0, 7, 383}) {
    double abs = 0, squares = 0, largest = 0;
    for (int64_t row = 0; row < 128; ++row) {
      const double x = mx::to_float(input.rows[row * 384 + j]);
      abs += std::fabs(x) / 128;
      squares += x * x / 128;
      largest = std::max(largest, std::fabs(x));
    }
    // Rows are rounded to BF16, by 2^-8 of themselves at most.
    EXPECT_NEAR(input.mean_abs[j], abs, abs * 0x1p-8);
    EXPECT_NEAR(input.second_moment[j], squares, squares * 0x1p-7);
    EXPECT_NEAR(input.max_abs[j], largest, largest * 0x1p-8);
  }
}

// STATS is untrusted: what calibration cannot have written is refused by name.
TEST(Statistics, ThatCannotBeAreRefused) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics good = statistics_of(weights, 1, 32);
  const testing::TemporaryFolder folder;
  const auto expect_refused = [&](const auto& damage, const std::string& expected) {
    Statistics bad = good;
    damage(bad);
    save_statistics(folder / "stats", bad);
    const auto load = [&] { load_statistics(folder / "stats", weights.config, "xxh3:1"); };
    EXPECT_THAT(testing::error_of(load), ::testing::HasSubstr(expected));
  };
  expect_refused([](Statistics& s) { s.token_ids[3] = 4096; },
                 "stats: token_ids: found 4096, expected ids from 0 to 4095");
  expect_refused([](Statistics& s) { s.token_ids[3] = -1; }, "token_ids: found -1");
  expect_refused([](Statistics& s) { s.layers[1][2].max_abs[5] = NAN; },
                 "model.layers.1.gate_up.max_abs: found NaN or Inf");
  expect_refused([](Statistics& s) { s.layers[1][2].rows[5] = {0xFF80}; },
                 "model.layers.1.gate_up.rows: found NaN or Inf");
  expect_refused(
      [](Statistics& s) {
        s.length = 4096;
        s.token_ids.resize(4096);
      },
      "__metadata__.length: found 4096, expected at most the model's context, 2048");
  for (Threshold lower : {Threshold::kPaperE2M1, Threshold::kPaperE2M3, Threshold::kReleased4}) {
    expect_refused(
        [&](Statistics& s) {
          auto& fractions = s.layers[1][2].fraction_below;
          fractions = {0.5, 0.5, 0.5, 0.5, 0.5};
          fractions[static_cast<size_t>(lower)] = 0.75;
        },
        "fraction_below.model.layers.1.gate_up: found [");
  }
}

// Every stored code and scale is the oracle's, at the place that docs/format.md gives it.
TEST(Pipeline, StoresWhatTheOracleQuantizes) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const testing::TemporaryFolder folder;
  quantize(weights, statistics_of(weights), options_for(AllocationMethod::kPaper), folder / "out");
  const ModelWeights quantized(folder / "out");
  const LayerWeights& layer = quantized.layers[1];
  const std::vector<int32_t>& folded = layer[LinearRole::kDown].folded_perm;
  ASSERT_EQ(folded.size(), 1024u);
  EXPECT_FALSE(std::is_sorted(folded.begin(), folded.end()));
  for (LinearRole role : {LinearRole::kQ, LinearRole::kUp, LinearRole::kDown}) {
    const LinearWeights& linear = layer[role];
    const std::vector<float> source = to_floats(*weights.layers[1][role].dense);
    const auto& permutation = role == LinearRole::kDown ? folded : linear.plan.permutation;
    for (int64_t row : {int64_t{0}, int64_t{5}, linear.n - 1}) {
      const int64_t source_row = role == LinearRole::kUp ? folded[row] : row;
      std::vector<float> values;
      for (int32_t channel : permutation) values.push_back(source[source_row * linear.k + channel]);
      testing::expect_oracle_row(linear, row, values, mx::ScaleRule::kRceil);
    }
  }
}

// With BF16 activations a quantized folder and its export compute the same but for the BF16
// rounding of inputs and outputs, also through a folded down_proj.
TEST(Pipeline, ExportIsTheSameFunction) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const testing::TemporaryFolder folder;
  QuantizeOptions options = options_for(AllocationMethod::kPaper);
  for (auto& [weight, activation] : options.activation_formats) activation = std::nullopt;
  quantize(weights, statistics_of(weights), options, folder / "quantized");
  export_bfloat16(ModelWeights(folder / "quantized"), folder / "exported", {}, nullptr);
  const auto original = logits_of(MICROMIX_DEMO_MODEL);
  const auto quantized = logits_of(folder / "quantized");
  const auto exported = logits_of(folder / "exported");
  EXPECT_LT(relative_difference(exported, quantized), 0.02);
  EXPECT_GT(relative_difference(exported, original), 0.03);  // it was quantized
  EXPECT_FALSE(ModelWeights(folder / "exported").config.quantization.has_value());
}

TEST(Pipeline, KeptLinearsStayAndFoldTheirRows) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const testing::TemporaryFolder folder;
  QuantizeOptions options = options_for(AllocationMethod::kPaper);
  options.keep = {"gate_proj|up_proj", "layers\\.0\\.self_attn\\.q_proj"};
  for (auto& [weight, activation] : options.activation_formats) activation = std::nullopt;
  quantize(weights, statistics_of(weights), options, folder / "out");
  const ModelWeights quantized(folder / "out");
  EXPECT_FALSE(quantized.layers[0][LinearRole::kQ].quantized());
  EXPECT_TRUE(quantized.layers[1][LinearRole::kQ].quantized());
  EXPECT_TRUE(quantized.layers[0][LinearRole::kK].quantized());
  EXPECT_FALSE(quantized.layers[0][LinearRole::kUp].quantized());
  EXPECT_THAT(quantized.config.quantization->modules_to_not_convert,
              ::testing::Contains("model.layers.3.mlp.gate_proj"));
  export_bfloat16(quantized, folder / "exported", {}, nullptr);
  // The export undoes the folding: gate and up are the original's bits.
  const ModelWeights exported(folder / "exported");
  for (LinearRole role : {LinearRole::kGate, LinearRole::kUp, LinearRole::kQ}) {
    EXPECT_EQ(to_floats(*exported.layers[0][role].dense),
              to_floats(*weights.layers[0][role].dense));
  }
  EXPECT_LT(relative_difference(logits_of(folder / "exported"), logits_of(folder / "out")), 0.02);
}

TEST(Pipeline, UniformE4M3IsCloseAndItsBitsAreExact) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const testing::TemporaryFolder folder;
  QuantizeOptions options = options_for(AllocationMethod::kUniform);
  options.allocation.uniform = mx::Format::kE4M3;
  const QuantizeReport report =
      quantize_model(weights, "xxh3:1", nullptr, options, folder / "out", {}, nullptr);
  EXPECT_EQ(report.after.average_bits, 8.25);
  EXPECT_TRUE(report.errors.empty());
  EXPECT_LT(report.after.bytes, report.before.bytes);
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
  const ModelWeights quantized(folder / "out");
  EXPECT_TRUE(quantized.layers[0][LinearRole::kDown].folded_perm.empty());
  EXPECT_EQ(quantized.config.quantization->average_bits, 8.25);
}

TEST(Pipeline, EveryArchitectureQuantizesAndExports) {
  for (const std::string name :
       {"llama3-rope", "llama-linear-rope", "llama2", "qwen2", "qwen3", "mistral"}) {
    const fs::path model = testing::data("models/" + name);
    const ModelWeights weights(model);
    const testing::TemporaryFolder folder;
    QuantizeOptions options = options_for(AllocationMethod::kReleased);
    for (auto& [weight, activation] : options.activation_formats) activation = std::nullopt;
    quantize(weights, statistics_of(weights, 2, 16), options, folder / "out");
    export_bfloat16(ModelWeights(folder / "out"), folder / "exported", {}, nullptr);
    EXPECT_LT(relative_difference(logits_of(folder / "exported"), logits_of(folder / "out")), 0.03)
        << name;
  }
}

TEST(Pipeline, BudgetIsMetAndGptqLeavesLessError) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  Statistics statistics = statistics_of(weights, 4, 128);
  measure_sensitivities(weights, statistics, nullptr);
  const testing::TemporaryFolder folder;
  QuantizeOptions options = options_for(AllocationMethod::kBudget);
  options.scale_rule = mx::ScaleRule::kEven;
  options.allocation.bits = 5.1;
  int64_t reports = 0;
  const QuantizeReport nearest =
      quantize_model(weights, "xxh3:1", &statistics, options, folder / "rtn", {},
                     [&](int64_t, int64_t) { ++reports; });
  EXPECT_EQ(reports, 2 * weights.config.num_layers);  // planning, then quantizing
  options.weights = WeightRounding::kGptq;
  const QuantizeReport gptq = quantize(weights, statistics, options, folder / "gptq");
  EXPECT_LE(nearest.after.average_bits, 5.1);
  EXPECT_GT(nearest.after.average_bits, 5.05);
  EXPECT_EQ(gptq.after.average_bits, nearest.after.average_bits);
  EXPECT_FALSE(gptq.budget_exhausted);
  for (const auto& [role, error] : gptq.errors) EXPECT_LT(error, nearest.errors.at(role)) << role;
  const auto original = logits_of(MICROMIX_DEMO_MODEL);
  EXPECT_LT(relative_difference(logits_of(folder / "gptq"), original), 0.3);
}

TEST(Pipeline, MaxKlIsMetByTheMeasuredPlan) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  Statistics statistics = statistics_of(weights);
  measure_sensitivities(weights, statistics, nullptr);
  const testing::TemporaryFolder folder;
  QuantizeOptions options = options_for(AllocationMethod::kBudget);
  options.scale_rule = mx::ScaleRule::kEven;
  double last_bits = 9;
  for (double target : {0.05, 0.2}) {
    options.allocation.max_kl = target;
    const QuantizeReport report =
        quantize(weights, statistics, options, folder / "out", {.force = true});
    ASSERT_TRUE(report.measured_kl.has_value());
    EXPECT_LE(*report.measured_kl, target);
    EXPECT_GT(*report.measured_kl, 0.75 * target);
    EXPECT_LT(report.after.average_bits, last_bits);
    last_bits = report.after.average_bits;
  }
}

TEST(Output, GptqResumesToTheSameBytes) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = statistics_of(weights);
  const testing::TemporaryFolder folder;
  QuantizeOptions options = options_for(AllocationMethod::kPaper);
  options.weights = WeightRounding::kGptq;
  quantize(weights, statistics, options, folder / "straight");
  const auto interrupt = [](int64_t done, int64_t) {
    if (done == 2) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(
      quantize_model(weights, "xxh3:1", &statistics, options, folder / "out", {}, interrupt),
      std::runtime_error);
  quantize(weights, statistics, options, folder / "out", {.resume = true});
  for (const auto& entry : fs::directory_iterator(folder / "straight")) {
    EXPECT_EQ(read_file(entry.path()),
              read_file(folder / "out" / entry.path().filename().string()));
  }
}

TEST(Output, IsRefusedResumedAndReplaced) {
  const ModelWeights weights(MICROMIX_DEMO_MODEL);
  const Statistics statistics = statistics_of(weights);
  const testing::TemporaryFolder folder;
  const fs::path out = folder / "out";
  const QuantizeOptions options = options_for(AllocationMethod::kPaper);
  quantize(weights, statistics, options, folder / "straight");

  const auto interrupt = [](int64_t done, int64_t) {
    if (done == 2) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(quantize_model(weights, "xxh3:1", &statistics, options, out, {}, interrupt),
               std::runtime_error);
  EXPECT_FALSE(fs::exists(out));
  EXPECT_THAT(testing::error_of([&] { quantize(weights, statistics, options, out); }),
              ::testing::HasSubstr("--resume continues it"));
  QuantizeOptions other = options;
  other.scale_rule = mx::ScaleRule::kFloor;
  EXPECT_THAT(
      testing::error_of([&] { quantize(weights, statistics, other, out, {.resume = true}); }),
      ::testing::HasSubstr("options.scale_rule: found \"floor\", expected \"rceil\", as in"));
  // The same text in other samples, other tokens, or statistics that plan otherwise.
  Statistics differing = statistics_of(weights, 1, 128);
  const auto resume_differing = [&] {
    quantize(weights, differing, options, out, {.resume = true});
  };
  EXPECT_THAT(testing::error_of(resume_differing),
              ::testing::HasSubstr("calibration.length: found 128, expected 64, as in"));
  differing = statistics;
  std::swap(differing.token_ids[0], differing.token_ids[1]);
  EXPECT_THAT(testing::error_of(resume_differing), ::testing::HasSubstr("calibration.token_hash"));
  differing = statistics;
  std::swap(differing.layers[0][0].mean_abs[0], differing.layers[0][0].mean_abs[1]);
  EXPECT_THAT(testing::error_of(resume_differing), ::testing::HasSubstr("plan_hash"));

  const std::string kept = "model-00002-of-00005.safetensors";
  const auto written = fs::last_write_time(folder.path() / "out.partial" / kept);
  const QuantizeReport report = quantize(weights, statistics, options, out, {.resume = true});
  EXPECT_EQ(fs::last_write_time(out / kept), written);
  EXPECT_EQ(report.errors.size(), 7u);
  for (const auto& entry : fs::directory_iterator(folder / "straight")) {
    EXPECT_EQ(read_file(entry.path()), read_file(out / entry.path().filename()));
  }

  EXPECT_THAT(testing::error_of([&] { quantize(weights, statistics, options, out); }),
              ::testing::HasSubstr("exists and is not empty"));
  // An interrupted replacement leaves OUT as it was, and goes on with both flags.
  EXPECT_THROW(
      quantize_model(weights, "xxh3:1", &statistics, other, out, {.force = true}, interrupt),
      std::runtime_error);
  const auto rewritten = fs::last_write_time(folder.path() / "out.partial" / kept);
  EXPECT_EQ(ModelWeights(out).config.quantization->scale_rule, mx::ScaleRule::kRceil);
  EXPECT_THAT(
      testing::error_of([&] { quantize(weights, statistics, other, out, {.resume = true}); }),
      ::testing::HasSubstr("--force replaces it"));
  quantize(weights, statistics, other, out, {.force = true, .resume = true});
  EXPECT_EQ(ModelWeights(out).config.quantization->scale_rule, mx::ScaleRule::kFloor);
  EXPECT_EQ(fs::last_write_time(out / kept), rewritten);
  quantize(weights, statistics, options, out, {.force = true});
  EXPECT_EQ(ModelWeights(out).config.quantization->scale_rule, mx::ScaleRule::kRceil);
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

// A resumed run needs room only for what is still to be written.
TEST(Output, FreeSpaceIsCheckedBesideWhatIsWritten) {
  const testing::TemporaryFolder folder;
  const fs::path partial = folder / "out.partial";
  const auto available = static_cast<int64_t>(fs::space(folder.path()).available);
  constexpr int64_t kSlack = int64_t{1} << 33;  // what others write meanwhile
  const auto check = [&] { expect_free_space(folder / "out", available + kSlack); };
  EXPECT_THAT(testing::error_of(check), ::testing::HasSubstr("GB free on this disk"));
  fs::create_directory(partial);
  testing::write_text(partial / "shard", "");
  fs::resize_file(partial / "shard", 2 * kSlack);  // sparse
  EXPECT_NO_THROW(check());
}

TEST(Output, NeverReplacesTheModelItself) {
  const testing::TemporaryFolder folder;
  const fs::path model = folder / "models/demo.partial";
  fs::create_directories(model.parent_path());
  fs::copy(MICROMIX_DEMO_MODEL, model);
  fs::create_directory_symlink("models", folder / "link");
  const ModelWeights weights(model);
  QuantizeOptions options = options_for(AllocationMethod::kUniform);
  for (const std::string out :
       {"models/demo.partial", "models/demo.partial/", "models/demo", "models", "link"}) {
    EXPECT_THAT(testing::error_of([&] {
                  quantize_model(weights, "xxh3:1", nullptr, options, folder / out,
                                 {.force = true, .resume = true}, nullptr);
                }),
                ::testing::HasSubstr("holds the model that is read"))
        << out;
  }
  EXPECT_TRUE(fs::exists(model / "config.json"));
  quantize_model(weights, "xxh3:1", nullptr, options, model / "out", {}, nullptr);
  EXPECT_THAT(testing::error_of([&] {
                export_bfloat16(ModelWeights(model / "out"), model / "out", {.force = true},
                                nullptr);
              }),
              ::testing::HasSubstr("holds the model that is read"));
}

// NaN or Inf in any weight, whether it is quantized, kept or none of a linear, is an error naming
// it.
TEST(Output, WeightsThatAreNotFiniteAreNamed) {
  const SafetensorsFile source(fs::path(MICROMIX_DEMO_MODEL) / "model.safetensors");
  const std::string nan = "\xFF\x7F";           // BF16
  const std::string huge = "\xFF\xFF\x7F\x7F";  // F32 that overflows BF16
  QuantizeOptions options = options_for(AllocationMethod::kUniform);
  options.keep = {"v_proj"};
  for (const auto& [damaged, value] : std::vector<std::pair<std::string, std::string>>{
           {"layers.2.mlp.up_proj.weight", nan},
           {"embed_tokens.weight", nan},
           {"model.norm.weight", nan},
           {"layers.1.input_layernorm.weight", huge},
           {"layers.0.self_attn.q_proj.bias", huge},
           {"layers.3.self_attn.v_proj.weight", nan}}) {
    const testing::TemporaryFolder folder;
    fs::copy(MICROMIX_DEMO_MODEL, folder / "model");
    std::vector<TensorData> tensors;
    std::string bytes;
    for (const auto& [name, view] : source.tensors()) {
      tensors.push_back({name, view.dtype, view.shape, view.bytes});
      if (!name.ends_with(damaged)) continue;
      if (value == huge) tensors.back().dtype = DType::kF32;
      bytes.assign(view.bytes.size() / 2 * value.size(), '\0');
      bytes.replace(value.size(), value.size(), value);
      tensors.back().bytes = std::as_bytes(std::span(bytes));
    }
    write_safetensors(folder / "model/model.safetensors", tensors);
    const ModelWeights weights(folder / "model");
    EXPECT_THAT(
        testing::error_of([&] {
          quantize_model(weights, "xxh3:1", nullptr, options, folder / "out", {}, nullptr);
        }),
        ::testing::AllOf(::testing::HasSubstr(damaged), ::testing::HasSubstr("NaN or Inf")));
    EXPECT_FALSE(fs::exists(folder / "out"));
  }
}

}  // namespace
}  // namespace micromix
