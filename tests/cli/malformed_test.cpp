// Untrusted input: each case ends with exit code 1, one line that names file and field, and nothing
// written. (The cases of safetensors' own header are in tests/checkpoint.)
#include "micromix/checkpoint/safetensors.h"
#include "tests/cli/command.h"

namespace micromix {
namespace {

using ::testing::HasSubstr;
using testing::ModelCopy;
using testing::run_command;

const std::string kModel = MICROMIX_DEMO_MODEL;
const std::string kText = MICROMIX_DEMO_DATA "/wikitext-2/test.txt";

// Runs quantize on the model.
void expect_failure(const ModelCopy& model, const std::vector<std::string>& parts,
                    const std::string& prefix) {
  const auto result = run_command("quantize " + model.path().string() + " -o " +
                                      model.out().string() + " --method uniform:e2m1",
                                  prefix);
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_EQ(testing::lines_of(result.err), 1) << result.err;
  for (const std::string& part : parts) EXPECT_THAT(result.err, HasSubstr(part));
  EXPECT_FALSE(std::filesystem::exists(model.out()));
}

// A damaged model fails before anything is written.
void expect_refused(const ModelCopy& model, const std::vector<std::string>& parts) {
  expect_failure(model, parts, "");
  EXPECT_FALSE(std::filesystem::exists(model.out().string() + ".partial"));
}

// Writes the demo's tensors again, after CHANGE.
template <typename Change>
void rewrite_tensors(const ModelCopy& model, const Change& change) {
  const SafetensorsFile source(std::filesystem::path(kModel) / "model.safetensors");
  std::vector<TensorData> tensors;
  for (const auto& [name, tensor] : source.tensors()) {
    tensors.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
  }
  change(tensors);
  write_safetensors(model.path() / "model.safetensors", tensors);
}

TEST(Malformed, TruncatedWeights) {
  const ModelCopy model;
  std::filesystem::resize_file(model.path() / "model.safetensors", 1000000);
  expect_refused(model, {"model.safetensors", "data_offsets"});
  std::filesystem::resize_file(model.path() / "model.safetensors", 5);
  expect_refused(model, {"model.safetensors", "header length", "5 bytes"});
}

TEST(Malformed, OversizedHeader) {
  const ModelCopy model;
  std::string bytes = read_file(model.path() / "model.safetensors");
  bytes[6] = 1;
  testing::write_text(model.path() / "model.safetensors", bytes);
  expect_refused(model, {"model.safetensors", "header length"});
}

TEST(Malformed, WrongShape) {
  const ModelCopy model;
  rewrite_tensors(model, [](auto& tensors) {
    for (TensorData& tensor : tensors) {
      if (tensor.name.ends_with("0.mlp.gate_proj.weight")) tensor.shape = {384, 1024};
    }
  });
  expect_refused(model, {"model.layers.0.mlp.gate_proj.weight", "[384, 1024]", "[1024, 384]"});
}

TEST(Malformed, WrongDtype) {
  const ModelCopy model;
  rewrite_tensors(model, [](auto& tensors) {
    for (TensorData& tensor : tensors) {
      if (tensor.name == "model.norm.weight") {
        tensor.dtype = DType::kI32;
        tensor.shape = {192};
      }
    }
  });
  expect_refused(model, {"model.norm.weight", "found I32", "expected BF16, F16 or F32"});
}

TEST(Malformed, MissingAndSuperfluousTensors) {
  const ModelCopy model;
  rewrite_tensors(model, [](auto& tensors) {
    std::erase_if(tensors,
                  [](const TensorData& t) { return t.name.ends_with("3.mlp.up_proj.weight"); });
  });
  expect_refused(model, {"model.layers.3.mlp.up_proj.weight", "no such tensor"});
  rewrite_tensors(model, [](auto& tensors) {
    TensorData extra = tensors.front();
    extra.name = "model.layers.4.mlp.up_proj.weight";
    tensors.push_back(extra);
  });
  expect_refused(model, {"model.layers.4.mlp.up_proj.weight", "config.json has no place for"});
}

TEST(Malformed, ConfigContradictsTensors) {
  const std::vector<std::pair<std::string, Json>> cases = {
      {"vocab_size", 4097},     {"hidden_size", 768},          {"intermediate_size", 512},
      {"num_hidden_layers", 3}, {"num_hidden_layers", 5},      {"num_key_value_heads", 3},
      {"head_dim", 32},         {"tie_word_embeddings", false}};
  for (const auto& [key, value] : cases) {
    const ModelCopy model;
    model.edit("config.json", [&, &k = key, &v = value](Json& json) { json[k] = v; });
    expect_refused(model, {"model"});
  }
}

TEST(Malformed, ConfigFields) {
  struct Case {
    std::string key;
    Json value;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {"architectures", {"GPT2LMHeadModel"}, "found 'GPT2LMHeadModel', expected one of"},
      {"hidden_size", -384, "hidden_size: found -384"},
      {"hidden_size", 1e30, "hidden_size"},
      {"hidden_size", "384", "hidden_size: found \"384\""},
      {"num_attention_heads", 0, "num_attention_heads: found 0"},
      {"num_key_value_heads", 4, "a divisor of num_attention_heads"},
      {"hidden_act", "gelu", "hidden_act: found 'gelu', expected silu"},
      {"rope_parameters",
       {{"rope_type", "yarn"}, {"rope_theta", 1e4}},
       "found 'yarn', expected default"},
      {"rope_parameters",
       {{"rope_type", "linear"}, {"rope_theta", 1e4}},
       "rope_parameters.factor: found nothing"},
      {"rms_norm_eps", "tiny", "rms_norm_eps"},
      {"eos_token_id", 4096, "a token id below 4096"},
      {"quantization_config", {{"quant_method", "gptq"}}, "quant_method: found 'gptq'"},
      {"layer_types",
       {"full_attention", "linear_attention", "full_attention", "full_attention"},
       "layer_types: found \"linear_attention\""},
      {"dtype", "int8", "dtype: found 'int8'"},
  };
  for (const Case& test : cases) {
    const ModelCopy model;
    model.edit("config.json", [&](Json& json) { json[test.key] = test.value; });
    if (test.key == "eos_token_id")
      std::filesystem::remove(model.path() / "generation_config.json");
    expect_refused(model, {"config.json", test.expected});
  }
}

TEST(Malformed, JsonItself) {
  const ModelCopy model;
  const std::filesystem::path config = model.path() / "config.json";
  testing::write_text(config, "{\"a\": ");
  expect_refused(model, {"config.json: JSON"});
  testing::write_text(config, "{\"a\": 1, \"a\": 2}");
  expect_refused(model, {"config.json: a: found the key twice"});
  testing::write_text(config, std::string(100000, '['));
  expect_refused(model, {"config.json: JSON: found nesting deeper than 64"});
  testing::write_text(config, "[]");
  expect_refused(model, {"config.json: root"});
  std::filesystem::remove(config);
  expect_refused(model, {"config.json: cannot read"});
}

TEST(Malformed, Shards) {
  const ModelCopy model(testing::data("models/llama2"));
  const std::string index = "model.safetensors.index.json";
  const Json original = read_json(model.path() / index);
  const auto with_shard = [&](const std::string& shard) {
    model.edit(index, [&](Json& json) {
      json = original;
      json["weight_map"]["model.norm.weight"] = shard;
    });
  };
  with_shard("../model-00001-of-00004.safetensors");
  expect_refused(model,
                 {index, "weight_map.model.norm.weight", "a file name in the model's folder"});
  with_shard("/etc/passwd");
  expect_refused(model, {index, "a file name in the model's folder"});
  with_shard("model-00009-of-00004.safetensors");
  expect_refused(model, {index, "model-00009-of-00004.safetensors, which is missing"});
  model.edit(index, [&](Json& json) { json = {{"weight_map", {1, 2}}}; });
  expect_refused(model, {index, "weight_map: found an array"});
  std::filesystem::remove(model.path() / index);
  expect_refused(model, {"neither model.safetensors nor its index.json"});
}

TEST(Malformed, TokenizerBeyondTheVocabulary) {
  const ModelCopy model;
  model.edit("tokenizer.json", [](Json& json) { json["model"]["vocab"]["zzzz"] = 5000; });
  const auto result =
      run_command("eval " + model.path().string() + " --data " + kText + " --max-windows 1");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(testing::lines_of(result.err), 1) << result.err;
  EXPECT_THAT(result.err, HasSubstr("token id 5000"));
}

// A model that computes NaN writes and scores nothing.
TEST(Malformed, LogitsThatAreNotFinite) {
  const ModelCopy model;
  const std::vector<uint16_t> nan(384, 0x7FFF);
  rewrite_tensors(model, [&](auto& tensors) {
    for (TensorData& tensor : tensors) {
      if (tensor.name == "model.norm.weight") tensor.bytes = std::as_bytes(std::span(nan));
    }
  });
  const std::string eval = " --data " + kText + " --window 16 --max-windows 1";
  for (const std::string& command :
       {"generate " + model.path().string() + " --prompt x", "eval " + model.path().string() + eval,
        "eval " + kModel + eval + " --json --reference " + model.path().string()}) {
    const auto result = run_command(command);
    EXPECT_EQ(result.exit_code, 1) << command;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr(model.path().string() + ": NaN or Inf in the logits of"));
  }
}

TEST(Malformed, Texts) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "empty", "");
  testing::write_text(folder / "latin1", "caf\xE9 au lait");
  testing::write_text(folder / "short", "A few words.");
  // Qwen2's tokenizer class has this token; the demo model has no embedding for it.
  testing::write_text(folder / "beyond", "a<|endoftext|>b");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"empty", "empty: text: found nothing"},
      {"latin1", "latin1"},
      {"short", "under one"},
      {"beyond", "beyond: text: found a token of id 4096, expected ids below"}};
  for (const auto& [file, expected] : cases) {
    const std::string data = " --data " + (folder / file).string();
    for (const std::string& command :
         {"eval " + kModel + data,
          "calibrate " + kModel + data + " -o " + (folder / "stats").string()}) {
      const auto result = run_command(command);
      EXPECT_EQ(result.exit_code, 1);
      EXPECT_EQ(testing::lines_of(result.err), 1) << result.err;
      EXPECT_THAT(result.err, HasSubstr(expected));
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "stats"));
  }
  for (const auto& [arguments, expected] : std::vector<std::pair<std::string, std::string>>{
           {"generate " + kModel + " --prompt-file empty", "empty: text: found no tokens"},
           {"generate " + kModel + " --prompt-file latin1", "latin1: text: byte 3: found 0xE9"},
           {"generate " + kModel + " --prompt-file beyond",
            "beyond: text: found a token of id 4096"},
           {"tokenize " + kModel + " --file latin1", "latin1: text: byte 3: found 0xE9"}}) {
    const auto result = run_command(arguments, "cd '" + folder.path().string() + "' &&");
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(testing::lines_of(result.err), 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr(expected));
  }
}

TEST(Malformed, Statistics) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "stats", "not safetensors");
  const auto result = run_command("quantize " + kModel + " -o " + (folder / "out").string() +
                                  " --stats " + (folder / "stats").string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("stats: header length"));
  const auto other = run_command("quantize " + kModel + " -o " + (folder / "out").string() +
                                 " --stats " + kModel + "/model.safetensors");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, HasSubstr("expected micromix-statistics-1"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out.partial"));
}

TEST(Malformed, Patterns) {
  const testing::TemporaryFolder folder;
  const auto result = run_command("quantize " + kModel + " -o " + (folder / "out").string() +
                                  " --method uniform:e2m1 --keep '('");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--keep: found '('"));
}

// A file-size limit stands for a full disk: writing fails in the middle of a shard.
TEST(Malformed, FullDisk) {
  const ModelCopy model;
  expect_failure(model, {"safetensors: cannot write"}, "ulimit -f 500; trap '' XFSZ;");
  // What was begun can go on where there is room.
  const auto resumed = run_command("quantize " + model.path().string() + " -o " +
                                   model.out().string() + " --method uniform:e2m1 --resume");
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_TRUE(std::filesystem::exists(model.out() / "config.json"));
}

// Damage to a quantized folder.
TEST(Malformed, QuantizedFolder) {
  const testing::TemporaryFolder folder;
  const std::filesystem::path quantized = folder / "quantized";
  ASSERT_EQ(run_command("quantize " + kModel + " -o " + quantized.string() + " --data " + kText +
                        " --samples 1 --length 128")
                .exit_code,
            0);
  const auto damage = [&](const std::string& tensor, const auto& change,
                          const std::string& expected) {
    const std::filesystem::path copy = folder / "copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(quantized, copy);
    const SafetensorsFile source(quantized / "model-00002-of-00005.safetensors");
    std::vector<TensorData> tensors;
    std::vector<std::byte> bytes;
    for (const auto& [name, view] : source.tensors()) {
      tensors.push_back({name, view.dtype, view.shape, view.bytes});
      if (name != tensor) continue;
      bytes.assign(view.bytes.begin(), view.bytes.end());
      change(tensors.back(), bytes);
      tensors.back().bytes = bytes;
    }
    std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
      return size_of(a.dtype) > size_of(b.dtype);
    });
    write_safetensors(copy / "model-00002-of-00005.safetensors", tensors);
    const auto result = run_command("inspect " + copy.string());
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(testing::lines_of(result.err), 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr(expected));
  };
  const std::string q = "model.layers.0.self_attn.q_proj";
  damage(
      q + ".input_perm",
      [](TensorData&, auto& bytes) {
        bytes[4] = bytes[0];
        bytes[5] = bytes[1];
      },
      "every number from 0 to 383 once");
  damage(
      q + ".input_perm",
      [](TensorData&, auto& bytes) {
        for (int i = 0; i < 4; ++i) std::swap(bytes[i], bytes[i + 4]);
      },
      "the same for all linears that share an input");
  damage(
      q + ".weight_e2m1",
      [](TensorData& tensor, auto& bytes) {
        tensor.shape = {1, static_cast<int64_t>(bytes.size())};
      },
      q + ".weight_e2m1");
  damage(
      q + ".weight_e2m1_scale", [&](TensorData& tensor, auto&) { tensor.name = q + ".scales"; },
      q + ".scales: found a tensor that the index does not place here");

  const std::filesystem::path config = quantized / "config.json";
  Json json = read_json(config);
  json["quantization_config"]["version"] = 2;
  testing::write_text(config, json.dump());
  EXPECT_THAT(run_command("inspect " + quantized.string()).err, HasSubstr("a newer micromix"));
}

}  // namespace
}  // namespace micromix
