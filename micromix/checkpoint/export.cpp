#include "micromix/checkpoint/export.h"

#include "micromix/base/error.h"
#include "micromix/checkpoint/names.h"
#include "micromix/checkpoint/shard_tensors.h"
#include "micromix/mx/bfloat16.h"
#include "micromix/mx/block.h"
#include "micromix/mx/packing.h"

namespace micromix {
namespace {

// The order that undoes PERMUTATION: result[permutation[j]] = j.
std::vector<int32_t> inverse(std::span<const int32_t> permutation) {
  std::vector<int32_t> result(permutation.size());
  for (size_t j = 0; j < permutation.size(); ++j) result[permutation[j]] = static_cast<int32_t>(j);
  return result;
}

// Row ROW as FP32 [k], its columns in their original order.
std::vector<float> dequantize_row(const LinearWeights& linear, int64_t row) {
  const std::vector<int32_t>& permutation =
      linear.folded_perm.empty() ? linear.plan.permutation : linear.folded_perm;
  std::vector<float> out(linear.k);
  int64_t channel = 0;
  for (const LinearWeights::Segment& segment : linear.segments) {
    const int64_t blocks = segment.channels / mx::kBlockSize;
    const int64_t bytes = mx::packed_bytes(segment.format, segment.channels);
    std::vector<uint8_t> codes(segment.channels);
    mx::unpack(segment.format, segment.codes->octets().subspan(row * bytes, bytes), codes);
    const auto scales = segment.scales->octets().subspan(row * blocks, blocks);
    for (int64_t i = 0; i < segment.channels; ++i, ++channel) {
      const int64_t column = permutation.empty() ? channel : permutation[channel];
      out[column] = mx::dequantize(segment.format, codes[i], scales[i / mx::kBlockSize]);
    }
  }
  return out;
}

void add_dequantized(const LinearWeights& linear, std::span<const int32_t> row_order,
                     ShardTensors& shard) {
  std::vector<mx::BFloat16> rounded(linear.n * linear.k);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < linear.n; ++row) {
    const std::vector<float> values =
        dequantize_row(linear, row_order.empty() ? row : row_order[row]);
    for (int64_t j = 0; j < linear.k; ++j) {
      rounded[row * linear.k + j] = mx::to_bfloat16(values[j]);
    }
  }
  shard.add(linear.module + ".weight", DType::kBF16, {linear.n, linear.k}, rounded);
}

ShardTensors layer_tensors(const LayerWeights& layer) {
  ShardTensors shard;
  add_norms(layer, shard);
  const std::vector<int32_t> unfolded = inverse(layer[LinearRole::kDown].folded_perm);
  for (LinearRole role : kLinearRoles) {
    const LinearWeights& linear = layer[role];
    const std::span<const int32_t> row_order = input_of(role) == InputRole::kMlp
                                                   ? std::span<const int32_t>(unfolded)
                                                   : std::span<const int32_t>{};
    shard.add_bfloat16(linear.bias, row_order);
    if (linear.quantized()) {
      add_dequantized(linear, row_order, shard);
    } else {
      shard.add_bfloat16(linear.dense, row_order);
    }
  }
  return shard;
}

}  // namespace

void export_bfloat16(const ModelWeights& weights, const std::filesystem::path& out,
                     const OutputOptions& output, const ProgressFunction& progress) {
  const ModelConfig& config = weights.config;
  if (!config.quantization) {
    throw Error(fmt::format("{}: not quantized by micromix, so there is nothing to export",
                            weights.store.model().string()));
  }
  const std::filesystem::path& model = weights.store.model();
  expect_usable_output(model, out, output);  // before the hash, which reads all of the model
  expect_free_space(out, 2 * measure(weights).parameters);
  const Json identity = {{"command", "export"}, {"model_hash", model_hash(model)}};
  OutputFolder folder(model, out, identity, config.num_layers + 1, output);
  if (!folder.has_shard(0)) {
    ShardTensors shard = outer_tensors(weights);
    if (weights.lm_head.quantized()) {
      add_dequantized(weights.lm_head, {}, shard);
    } else if (!config.tie_word_embeddings) {
      shard.add_bfloat16(weights.lm_head.dense);
    }
    folder.write_shard(0, shard.sorted());
  }
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if (!folder.has_shard(i + 1)) {
      folder.write_shard(i + 1, layer_tensors(weights.layers[i]).sorted());
      weights.layers[i].release();
    }
    report(progress, i + 1, config.num_layers);
  }
  Json json = config.json;
  json.erase("quantization_config");
  folder.write_json("config.json", json);
  folder.copy_side_files();
  folder.commit();
}

}  // namespace micromix
