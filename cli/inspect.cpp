// micromix inspect: what a model folder holds.
#include <memory>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/checkpoint/model_weights.h"

namespace micromix::cli {
namespace {

void print_linear(const LinearWeights& linear) {
  const double bits =
      8.0 * static_cast<double>(linear.stored_bytes()) / static_cast<double>(linear.n * linear.k);
  fmt::print("{:<40} {:>7} {:>7}", linear.module, linear.n, linear.k);
  for (int64_t channels : linear.plan.channels) {
    fmt::print(" {:>7}", channels > 0 ? std::to_string(channels) : "-");
  }
  fmt::print(" {:>7.3f}{}\n", bits,
             !linear.quantized()               ? "  " + std::string(name(linear.dense->dtype))
             : !linear.folded_perm.empty()     ? "  folded"
             : linear.plan.permutation.empty() ? ""
                                               : "  permuted");
}

void run(const std::string& model) {
  const ModelWeights weights(model);
  fmt::print("{:<40} {:>7} {:>7}", "linear", "N", "K");
  for (mx::Format format : mx::kOperandFormats) fmt::print(" {:>7}", mx::name(format));
  fmt::print(" {:>7}\n", "bits");
  for (const LayerWeights& layer : weights.layers) {
    for (const LinearWeights& linear : layer.linears) print_linear(linear);
  }
  print_linear(weights.lm_head);

  const ModelSize size = measure(weights);
  fmt::print("\nparameters    {}\n", size.parameters);
  fmt::print("bytes         {} ({:.4f} bits a parameter)\n", size.bytes, size.bits_per_parameter);
  if (!weights.config.quantization) return;
  const QuantizationConfig& quantization = *weights.config.quantization;
  fmt::print("average bits  {:.4f} over the quantized linears\n", size.average_bits);
  fmt::print("scale rule    {}\n", mx::name(quantization.scale_rule));
  fmt::print("activations  ");
  for (const auto& [weight, activation] : quantization.activation_formats) {
    fmt::print(" {}={}", mx::name(weight), activation ? mx::name(*activation) : "bf16");
  }
  fmt::print("\nprovenance    {}\n", quantization.provenance.dump());
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "inspect", "A table of a model's linears: shapes, channels per format, bits.");
  add_model(*command, *model);
  command->callback([model] { run(*model); });
}

}  // namespace micromix::cli
