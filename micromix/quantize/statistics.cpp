#include "micromix/quantize/statistics.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "micromix/base/error.h"
#include "micromix/base/json.h"
#include "micromix/checkpoint/names.h"
#include "micromix/model/model.h"

namespace micromix {
namespace {

constexpr const char* kFormatName = "micromix-statistics-1";

std::string input_name(int64_t layer, InputRole role) {
  return fmt::format("{}.{}", names::layer(layer), names::short_name(role));
}

int64_t input_size(const ModelConfig& config, InputRole role) {
  switch (role) {
    case InputRole::kAttention:
    case InputRole::kMlp:
      return config.hidden_size;
    case InputRole::kOutput:
      return config.num_heads * config.head_dim;
    case InputRole::kDown:
      return config.intermediate_size;
  }
  return 0;
}

const std::string& metadata_at(const SafetensorsFile& file, const std::string& key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) {
    throw_invalid(file.path().string(), "__metadata__." + key, "nothing",
                  "a STATS file written by micromix calibrate");
  }
  return it->second;
}

int64_t count_at(const SafetensorsFile& file, const std::string& key) {
  const std::string& text = metadata_at(file, key);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1 << 24) {
    throw_invalid(file.path().string(), "__metadata__." + key, text, "a positive number");
  }
  return value;
}

// Beside mx::is_finite.
bool is_finite(float value) {
  return std::isfinite(value);
}

template <typename T>
std::vector<T> values_at(const SafetensorsFile& file, const std::string& name, DType dtype,
                         std::vector<int64_t> shape) {
  const TensorView& tensor = file.at(name);
  tensor.expect(dtype, shape);
  std::vector<T> values = tensor.values<T>();
  if (!std::ranges::all_of(values, [](T value) { return is_finite(value); })) {
    throw_invalid(file.path().string(), name, "NaN or Inf", "finite values");
  }
  return values;
}

std::array<double, kThresholds> fractions_at(const JsonObject& fractions, const std::string& name) {
  const Json& values = fractions.at(name);
  std::array<double, kThresholds> result{};
  if (!values.is_array() || values.size() != result.size()) {
    fractions.fail(name, describe(values), fmt::format("{} fractions", result.size()));
  }
  for (size_t i = 0; i < result.size(); ++i) {
    if (!values[i].is_number() || !(values[i].get<double>() >= 0 && values[i].get<double>() <= 1)) {
      fractions.fail(name, describe(values[i]), "a fraction from 0 to 1");
    }
    result[i] = values[i].get<double>();
  }
  const auto falls = [&](Threshold small, Threshold large) {
    return result[static_cast<size_t>(small)] > result[static_cast<size_t>(large)];
  };
  if (falls(Threshold::kPaperE2M1, Threshold::kPaperE2M3) ||
      falls(Threshold::kPaperE2M3, Threshold::kPaperE3M2) ||
      falls(Threshold::kReleased4, Threshold::kReleased6)) {
    fractions.fail(name, values.dump(), "fractions that grow with their thresholds");
  }
  return result;
}

InputStatistics input_at(const SafetensorsFile& file, const JsonObject& fractions,
                         const std::string& name, int64_t channels) {
  InputStatistics input;
  input.mean_abs = values_at<float>(file, name + ".mean_abs", DType::kF32, {channels});
  input.max_abs = values_at<float>(file, name + ".max_abs", DType::kF32, {channels});
  input.second_moment = values_at<float>(file, name + ".second_moment", DType::kF32, {channels});
  input.row_count = count_at(file, "rows");
  input.rows =
      values_at<mx::BFloat16>(file, name + ".rows", DType::kBF16, {input.row_count, channels});
  input.fraction_below = fractions_at(fractions, name);
  return input;
}

template <typename T>
TensorData tensor_data(const std::string& name, DType dtype, std::vector<int64_t> shape,
                       const std::vector<T>& values) {
  return {name, dtype, std::move(shape), std::as_bytes(std::span(values))};
}

}  // namespace

double paper_threshold(mx::Format format) {
  const mx::FormatTraits f = mx::traits(format);
  return std::ldexp(1.0, f.bias + f.bits - 1) / f.largest / 254.0;
}

double value_of(Threshold threshold) {
  switch (threshold) {
    case Threshold::kPaperE2M1:
      return paper_threshold(mx::Format::kE2M1);
    case Threshold::kPaperE2M3:
      return paper_threshold(mx::Format::kE2M3);
    case Threshold::kPaperE3M2:
      return paper_threshold(mx::Format::kE3M2);
    case Threshold::kReleased4:
      return kReleasedThreshold4;
    case Threshold::kReleased6:
      return kReleasedThreshold6;
  }
  return 0;
}

void save_statistics(const std::filesystem::path& path, const Statistics& statistics) {
  std::vector<TensorData> wide;  // 4-byte elements first, so that all stay aligned
  std::vector<TensorData> rows;
  Json fractions = Json::object();
  Json fp4_kl = Json::object();
  wide.push_back(tensor_data("token_ids", DType::kI32,
                             {static_cast<int64_t>(statistics.token_ids.size())},
                             statistics.token_ids));
  for (int64_t layer = 0; layer < static_cast<int64_t>(statistics.layers.size()); ++layer) {
    for (InputRole role : kInputRoles) {
      const InputStatistics& input = statistics.at(layer, role);
      const std::string name = input_name(layer, role);
      const int64_t channels = input.channels();
      wide.push_back(tensor_data(name + ".mean_abs", DType::kF32, {channels}, input.mean_abs));
      wide.push_back(tensor_data(name + ".max_abs", DType::kF32, {channels}, input.max_abs));
      wide.push_back(
          tensor_data(name + ".second_moment", DType::kF32, {channels}, input.second_moment));
      rows.push_back(
          tensor_data(name + ".rows", DType::kBF16, {input.row_count, channels}, input.rows));
      fractions[name] = input.fraction_below;
      if (input.fp4_kl) fp4_kl[name] = *input.fp4_kl;
    }
  }
  wide.insert(wide.end(), rows.begin(), rows.end());
  write_safetensors(path, wide,
                    {{"format", kFormatName},
                     {"samples", std::to_string(statistics.samples)},
                     {"length", std::to_string(statistics.length)},
                     {"rows", std::to_string(statistics.layers[0][0].row_count)},
                     {"text_hash", statistics.text_hash},
                     {"model_hash", statistics.model_hash},
                     {"fraction_below", fractions.dump()},
                     {"fp4_kl", fp4_kl.dump()}});
}

Statistics load_statistics(const std::filesystem::path& path, const ModelConfig& config,
                           const std::string& model_hash) {
  const SafetensorsFile file(path);
  const auto expect = [&](const std::string& key, const std::string& expected) {
    if (metadata_at(file, key) != expected) {
      throw_invalid(path.string(), "__metadata__." + key, metadata_at(file, key), expected);
    }
  };
  expect("format", kFormatName);
  expect("model_hash", model_hash);

  Statistics statistics;
  statistics.samples = count_at(file, "samples");
  statistics.length = count_at(file, "length");
  if (statistics.length > max_context(config)) {
    throw_invalid(path.string(), "__metadata__.length", fmt::format("{}", statistics.length),
                  fmt::format("at most the model's context, {}", max_context(config)));
  }
  statistics.text_hash = metadata_at(file, "text_hash");
  statistics.model_hash = model_hash;
  statistics.token_ids =
      values_at<int32_t>(file, "token_ids", DType::kI32, {statistics.samples * statistics.length});
  for (int32_t id : statistics.token_ids) {
    if (id < 0 || id >= config.vocab_size) {
      throw_invalid(path.string(), "token_ids", fmt::format("{}", id),
                    fmt::format("ids from 0 to {}", config.vocab_size - 1));
    }
  }
  const Json parsed = parse_json(metadata_at(file, "fraction_below"), path.string());
  const JsonObject fractions(parsed, path.string(), "__metadata__.fraction_below");
  const Json parsed_kl = parse_json(metadata_at(file, "fp4_kl"), path.string());
  const JsonObject fp4_kl(parsed_kl, path.string(), "__metadata__.fp4_kl");
  statistics.layers.resize(config.num_layers);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (InputRole role : kInputRoles) {
      const std::string name = input_name(layer, role);
      InputStatistics& input = statistics.layers[layer][static_cast<size_t>(role)];
      input = input_at(file, fractions, name, input_size(config, role));
      if (!parsed_kl.contains(name)) continue;
      input.fp4_kl = fp4_kl.number(name);
      if (*input.fp4_kl < 0)
        fp4_kl.fail(name, describe(parsed_kl[name]), "a divergence of 0 or more");
    }
  }
  return statistics;
}

}  // namespace micromix
