#include "micromix/quantize/sensitivity.h"

#include <algorithm>

#include "micromix/kernels/host.h"
#include "micromix/model/distribution.h"
#include "micromix/model/model.h"
#include "micromix/model/output_head.h"
#include "micromix/quantize/simulated_layer.h"

namespace micromix {
namespace {

// Tokens whose logits are held at a time.
constexpr int64_t kLogitRows = 64;

// Windows spread over the calibration samples, each from the start of one.
struct Sample {
  Sample(const Statistics& statistics, int64_t wanted_windows, int64_t wanted_length)
      : windows(std::min(wanted_windows, statistics.samples)),
        length(std::min(wanted_length, statistics.length)) {
    for (int64_t window = 0; window < windows; ++window) {
      const int64_t from = window * statistics.samples / windows * statistics.length;
      const auto begin = statistics.token_ids.begin() + from;
      ids.insert(ids.end(), begin, begin + length);
    }
  }

  int64_t windows;
  int64_t length;
  std::vector<int32_t> ids;
};

// One hidden state a token of the sample, [tokens, hidden_size].
using Hidden = std::vector<float>;

kernels::HostBuffer view(Hidden& hidden, int64_t size) {
  return {hidden.data(), std::ssize(hidden) / size, size};
}

void run_layer(const DecoderLayer& layer, const ModelConfig& config, const Sample& sample,
               Hidden& hidden) {
  const kernels::Backend& backend = kernels::reference_backend();
  kernels::HostBuffer states = view(hidden, config.hidden_size);
  const auto cache = backend.make_key_values(attention_shape(config), sample.length);
  Workspace workspace(backend);
  for (int64_t window = 0; window < sample.windows; ++window) {
    cache->clear();
    const kernels::Rows rows(states, window * sample.length, sample.length);
    layer.forward(rows, nullptr, *cache, workspace);
    backend.add(rows, *workspace.output);
  }
}

// Sum over rows of KL(softmax(reference) || softmax(logits)).
double sum_kl(const kernels::HostBuffer& reference, const kernels::HostBuffer& logits) {
  const int64_t vocab = logits.width();
  std::vector<double> rows(logits.rows());  // summed in order: the same for any number of threads
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < logits.rows(); ++i) {
    const float* p = reference.row(i);
    const float* q = logits.row(i);
    rows[i] = kl_divergence(p, log_sum_exp(p, vocab), q, log_sum_exp(q, vocab), vocab);
  }
  double sum = 0;
  for (double row : rows) sum += row;
  return sum;
}

// Mean KL of the last hidden states OTHERS from those of BASE.
std::vector<double> mean_kl(const ModelWeights& weights, Hidden& base, std::span<Hidden> others) {
  const OutputHead head(weights, kernels::reference_backend());
  const auto input = kernels::reference_backend().make_input();
  const int64_t size = weights.config.hidden_size;
  const int64_t tokens = std::ssize(base) / size;
  kernels::HostBuffer reference, logits;
  std::vector<double> kl(others.size());
  for (int64_t row = 0; row < tokens; row += kLogitRows) {
    const int64_t m = std::min(kLogitRows, tokens - row);
    const auto logits_of = [&](Hidden& hidden, kernels::HostBuffer& out) {
      kernels::HostBuffer states = view(hidden, size);
      head.logits({states, row, m}, *input, out);
    };
    logits_of(base, reference);
    for (size_t i = 0; i < others.size(); ++i) {
      logits_of(others[i], logits);
      kl[i] += sum_kl(reference, logits) / static_cast<double>(tokens);
    }
  }
  return kl;
}

// The plan that quantizes the readers of INPUT alone, to E2M1.
LayerPlan fp4_plan(InputRole input, const InputStatistics& statistics) {
  LayerPlan plan;
  Plan& of_input = plan.plans[static_cast<size_t>(input)];
  of_input = uniform_plan(statistics.channels(), mx::Format::kE2M1);
  of_input.permutation = ascending_order(statistics);
  for (LinearRole role : kLinearRoles) {
    plan.quantized[static_cast<size_t>(role)] =
        input_of(role) == input && statistics.channels() % mx::kBlockSize == 0;
  }
  return plan;
}

}  // namespace

void measure_sensitivities(const ModelWeights& weights, Statistics& statistics,
                           const ProgressFunction& progress) {
  const ModelConfig& config = weights.config;
  QuantizeOptions options;
  options.scale_rule = mx::ScaleRule::kEven;
  options.activation_formats = same_activations();
  const Sample sample(statistics, 4, 256);
  Hidden base = embed(weights, sample.ids);
  std::vector<Hidden> perturbed;  // in order of layer, then input
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const LayerWeights& layer_weights = weights.layers[index];
    const DecoderLayer layer(layer_weights, config, kernels::reference_backend());
    for (Hidden& hidden : perturbed) run_layer(layer, config, sample, hidden);
    for (InputRole input : kInputRoles) {
      const SimulatedLayer other(layer_weights, config,
                                 fp4_plan(input, statistics.at(index, input)), options);
      perturbed.push_back(base);
      run_layer(other.layer(), config, sample, perturbed.back());
    }
    run_layer(layer, config, sample, base);
    layer_weights.release();
    report(progress, index + 1, config.num_layers + 1);
  }
  const std::vector<double> kl = mean_kl(weights, base, perturbed);
  for (size_t i = 0; i < kl.size(); ++i) {
    // Rounding may take the divergence of equal distributions below zero.
    statistics.layers[i / kInputRoles.size()][i % kInputRoles.size()].fp4_kl = std::max(0.0, kl[i]);
  }
  report(progress, config.num_layers + 1, config.num_layers + 1);
}

double measure_plan_kl(const ModelWeights& weights, const Statistics& statistics,
                       const ModelPlan& plan, const QuantizeOptions& options,
                       const ProgressFunction& progress) {
  const ModelConfig& config = weights.config;
  const Sample sample(statistics, 8, 512);
  Hidden base = embed(weights, sample.ids);
  std::array<Hidden, 1> quantized = {base};
  for (int64_t index = 0; index < config.num_layers; ++index) {
    const LayerWeights& layer_weights = weights.layers[index];
    run_layer(DecoderLayer(layer_weights, config, kernels::reference_backend()), config, sample,
              base);
    run_layer(SimulatedLayer(layer_weights, config, plan.layers[index], options).layer(), config,
              sample, quantized[0]);
    layer_weights.release();
    report(progress, index + 1, config.num_layers);
  }
  return mean_kl(weights, base, quantized)[0];
}

bool has_sensitivities(const Statistics& statistics) {
  return std::ranges::all_of(statistics.layers, [](const auto& layer) {
    return std::ranges::all_of(
        layer, [](const InputStatistics& input) { return input.fp4_kl.has_value(); });
  });
}

}  // namespace micromix
