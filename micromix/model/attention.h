// Causal attention with grouped queries (Ainslie et al. 2023) over a cache.
#pragma once

#include <cstdint>

#include "micromix/checkpoint/config.h"
#include "micromix/model/kv_cache.h"

namespace micromix {

// OUT [m, heads * head_dim] = softmax(Q K^T / sqrt(head_dim)) V for the last M positions of CACHE,
// which holds their keys and values already. Q is [m, heads * head_dim].
void attend(const ModelConfig& config, int64_t m, const float* q, const KvLayer& cache, float* out);

}  // namespace micromix
