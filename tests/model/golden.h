// Checks of a model folder against logits and greedy continuations made by transformers (FP32
// arithmetic on the stored weights).
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "micromix/checkpoint/safetensors.h"
#include "micromix/model/generate.h"
#include "tests/testing.h"

namespace micromix::testing {

inline std::vector<int32_t> row_of_ids(const TensorView& ids, int64_t row) {
  const int64_t length = ids.shape[1];
  const auto row_of = [&](const auto& all) {
    return std::vector<int32_t>(all.begin() + row * length, all.begin() + (row + 1) * length);
  };
  return ids.dtype == DType::kI64 ? row_of(ids.values<int64_t>()) : row_of(ids.values<int32_t>());
}

// The largest |difference| of the model's logits from GOLDEN's `logits` for its `input_ids`.
inline double largest_logit_difference(const Model& model, const std::filesystem::path& golden) {
  const SafetensorsFile file(golden);
  const TensorView& ids = file.at("input_ids");
  const auto expected = file.at("logits").values<float>();
  const int64_t length = ids.shape[1];
  const int64_t vocab = model.config().vocab_size;
  double largest = 0;
  for (int64_t row = 0; row < ids.shape[0]; ++row) {
    Context context = model.make_context(length);
    model.forward(row_of_ids(ids, row), context);
    const auto logits = model.logits(0, length, context);
    for (int64_t i = 0; i < length * vocab; ++i) {
      const double difference = std::fabs(logits[i] - expected[row * length * vocab + i]);
      if (!(difference <= largest)) largest = difference;  // NaN is never smaller
    }
  }
  return largest;
}

inline std::vector<int32_t> greedy(const Model& model, const std::vector<int32_t>& prompt,
                                   int64_t count) {
  GenerateOptions options;
  options.max_new_tokens = count;
  options.ignore_eos = true;
  std::vector<int32_t> ids;
  generate(model, prompt, options, [&](int32_t id) { ids.push_back(id); });
  return ids;
}

// The folders of data/models with logits.safetensors and greedy.json: every architecture.
inline auto architectures() {
  return ::testing::Values("llama3-rope", "llama-linear-rope", "llama2", "qwen2", "qwen3",
                           "mistral");
}
inline std::string architecture_name(const ::testing::TestParamInfo<const char*>& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// FOLDER's greedy.json.
inline void expect_golden_continuation(const Model& model, const std::filesystem::path& folder) {
  const Json golden = read_json(folder / "greedy.json");
  const auto expected = golden.at("ids").get<std::vector<int32_t>>();
  EXPECT_EQ(greedy(model, golden.at("prompt_ids").get<std::vector<int32_t>>(),
                   static_cast<int64_t>(expected.size())),
            expected);
}

}  // namespace micromix::testing
