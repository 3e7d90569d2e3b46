// How much the model loses: KL(BF16 || quantized), mean over tokens of the calibration text, with
// weights rounded to nearest. Each pass goes over the layers once and reads a layer's weights once.
#pragma once

#include "micromix/base/progress.h"
#include "micromix/checkpoint/model_weights.h"
#include "micromix/quantize/planning.h"
#include "micromix/quantize/statistics.h"

namespace micromix {

// Fills in InputStatistics::fp4_kl of every input: the KL divergence when the linears that read
// this input, and its activations, are E2M1 in ascending order of mean |x| with `even` scales, and
// everything else is BF16. It weighs the harm of one input against another's in the budget
// allocation.
//
// Over 4 x 256 tokens. Each layer carries on the hidden states of every input perturbed before it,
// so what stays in memory is 4 states a layer (2.1 GB for an 8B model).
void measure_sensitivities(const ModelWeights& weights, Statistics& statistics,
                           const ProgressFunction& progress);

// Whether every input has its fp4_kl.
bool has_sensitivities(const Statistics& statistics);

// The KL divergence of the model along PLAN, over 8 x 512 tokens.
double measure_plan_kl(const ModelWeights& weights, const Statistics& statistics,
                       const ModelPlan& plan, const QuantizeOptions& options,
                       const ProgressFunction& progress);

}  // namespace micromix
