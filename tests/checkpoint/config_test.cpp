#include "micromix/checkpoint/config.h"

#include "micromix/checkpoint/model_weights.h"
#include "tests/testing.h"

namespace micromix {
namespace {

using ::testing::HasSubstr;

Json base() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 100},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"max_position_embeddings", 512}};
}

ModelConfig with(const Json& changes) {
  Json json = base();
  json.update(changes);
  return parse_config(json, "config.json");
}

std::string error_with(const Json& changes) {
  return testing::error_of([&] { with(changes); });
}

TEST(Config, DefaultsAreThoseOfTransformers) {
  const ModelConfig config = with(Json::object());
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_TRUE(config.eos_token_ids.empty());
}

TEST(Config, BothSpellingsOfRope) {
  const Json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 256}};
  Json parameters = scaling;
  parameters["rope_theta"] = 500000.0;
  const RopeConfig old_spelling = with({{"rope_theta", 500000.0}, {"rope_scaling", scaling}}).rope;
  const RopeConfig new_spelling = with({{"rope_parameters", parameters}}).rope;
  for (const RopeConfig& rope : {old_spelling, new_spelling}) {
    EXPECT_EQ(rope.type, RopeType::kLlama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.low_frequency_factor, 1.0);
    EXPECT_EQ(rope.high_frequency_factor, 4.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 256);
  }
  EXPECT_EQ(with({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}).rope.factor, 2.0);
  EXPECT_EQ(with({{"rope_scaling", nullptr}}).rope.type, RopeType::kDefault);
}

TEST(Config, RopeThatIsNotSupportedIsAnError) {
  EXPECT_THAT(
      error_with({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}}}}),
      HasSubstr("rope_scaling.rope_type: found 'yarn', expected default, linear or llama3"));
  EXPECT_THAT(error_with({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}}),
              HasSubstr("found 'dynamic'"));
  EXPECT_THAT(error_with({{"rope_theta", 1e4}, {"rope_parameters", {{"rope_theta", 5e5}}}}),
              HasSubstr("rope_theta"));
  EXPECT_THAT(error_with({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}}),
              HasSubstr("rope_parameters.full_attention: found an object"));
  EXPECT_THAT(error_with({{"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(error_with({{"rope_scaling", {{"type", "linear"}, {"factor", 0}}}}),
              HasSubstr("rope_scaling.factor: found 0, expected a positive number"));
}

TEST(Config, ArchitecturesAndTheirBiases) {
  EXPECT_TRUE(with({{"architectures", {"Qwen2ForCausalLM"}}}).qkv_bias);
  EXPECT_FALSE(with({{"architectures", {"Qwen2ForCausalLM"}}}).o_bias);
  EXPECT_TRUE(with({{"architectures", {"Qwen3ForCausalLM"}}}).qk_norm);
  EXPECT_TRUE(with({{"attention_bias", true}, {"mlp_bias", true}}).o_bias);
  EXPECT_TRUE(with({{"attention_bias", true}, {"mlp_bias", true}}).mlp_bias);
  EXPECT_FALSE(with({{"architectures", {"MistralForCausalLM"}}}).qkv_bias);
}

TEST(Config, SlidingWindows) {
  const Json qwen = {{"architectures", {"Qwen2ForCausalLM"}}, {"sliding_window", 32}};
  const auto qwen_with = [&](Json changes) {
    changes.update(qwen);
    return with(changes).sliding_window;
  };
  EXPECT_EQ(
      with({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 32}}).sliding_window, 32);
  EXPECT_EQ(
      with({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", nullptr}}).sliding_window,
      std::nullopt);
  EXPECT_EQ(qwen_with({{"use_sliding_window", false}}), std::nullopt);
  EXPECT_EQ(qwen_with({{"use_sliding_window", true}, {"max_window_layers", 2}}), std::nullopt);
  EXPECT_EQ(qwen_with({{"use_sliding_window", true}, {"max_window_layers", 1}}), 32);
  const Json mixed = {"full_attention", "sliding_attention"};
  const Json full = {"full_attention", "full_attention"};
  EXPECT_EQ(qwen_with({{"use_sliding_window", true}, {"layer_types", mixed}}), 32);
  EXPECT_EQ(qwen_with({{"use_sliding_window", true}, {"layer_types", full}}), std::nullopt);
  EXPECT_EQ(qwen_with({{"layer_types", full}}), std::nullopt);
  Json contradiction = qwen;
  contradiction["layer_types"] = mixed;
  EXPECT_THAT(error_with(contradiction),
              HasSubstr("use_sliding_window: found false, expected true"));
}

TEST(Config, EosOfTheGenerationConfigWins) {
  const testing::TemporaryFolder folder;
  Json json = base();
  json["eos_token_id"] = 5;
  testing::write_text(folder / "config.json", json.dump());
  EXPECT_EQ(load_config(folder.path()).eos_token_ids, (std::vector<int64_t>{5}));
  testing::write_text(folder / "generation_config.json", R"({"eos_token_id": [7, 8]})");
  EXPECT_EQ(load_config(folder.path()).eos_token_ids, (std::vector<int64_t>{7, 8}));
  testing::write_text(folder / "generation_config.json", R"({"eos_token_id": 100})");
  EXPECT_THAT(testing::error_of([&] { load_config(folder.path()); }),
              HasSubstr("generation_config.json: eos_token_id: found 100"));
}

TEST(QuantizationConfig, SurvivesItsJson) {
  QuantizationConfig written;
  written.channel_group = 128;
  written.scale_rule = mx::ScaleRule::kEven;
  written.activation_formats = {{mx::Format::kE2M1, mx::Format::kE4M3},
                                {mx::Format::kE4M3, std::nullopt}};
  written.modules_to_not_convert = {"lm_head"};
  written.average_bits = 5.25;
  written.provenance = {{"method", "paper"}};
  const auto read = with({{"quantization_config", written.to_json()}}).quantization;
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->to_json(), written.to_json());
  EXPECT_EQ(read->activation_formats, written.activation_formats);
}

TEST(QuantizationConfig, MalformedFieldsAreErrors) {
  QuantizationConfig valid;
  valid.provenance = Json::object();
  const auto error = [&](const std::string& key, const Json& value) {
    Json json = valid.to_json();
    json[key] = value;
    return error_with({{"quantization_config", json}});
  };
  EXPECT_THAT(error("version", 2),
              HasSubstr("quantization_config.version: found 2, expected at most 1"));
  EXPECT_THAT(error("block_size", 16), HasSubstr("block_size: found 16"));
  EXPECT_THAT(error("channel_group", 96),
              HasSubstr("channel_group: found 96, expected 32, 64 or 128"));
  EXPECT_THAT(error("scale_rule", "up"), HasSubstr("scale_rule: found 'up'"));
  EXPECT_THAT(error("activation_formats", {{"e2m1", "int8"}}),
              HasSubstr("activation_formats.e2m1: found 'int8'"));
  EXPECT_THAT(error("activation_formats", {{"e5m2", "bf16"}}),
              HasSubstr("activation_formats.e5m2"));
  EXPECT_THAT(error("modules_to_not_convert", {1}), HasSubstr("modules_to_not_convert: found 1"));
  EXPECT_THAT(error("average_bits", "5"), HasSubstr("average_bits: found \"5\""));
  EXPECT_THAT(error("quant_method", "awq"), HasSubstr("quant_method: found 'awq'"));
}

TEST(ModelSize, CountsEveryParameter) {
  const ModelSize size = measure(ModelWeights(MICROMIX_DEMO_MODEL));
  EXPECT_EQ(size.parameters, 7870336);
  EXPECT_EQ(size.average_bits, 0);
  EXPECT_NEAR(size.bits_per_parameter, 16, 0.01);  // and the header
}

}  // namespace
}  // namespace micromix
