// Attention over a cache in BF16, on the tensor cores (mma.sync, sm_80 up).
//
// A block of four warps takes 64 rows, a row being a query of one of the heads that share a key
// head, and goes through the keys 64 (or 16) at a time with a running maximum and sum (Milakov and
// Gimelshein 2018; Dao et al. 2022). Where rows are too few to fill the GPU, as in decoding, blocks
// also share out the keys, and a second kernel joins their results.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include "micromix/kernels/attention.h"
#include "micromix/kernels/cuda/device.h"

namespace micromix::kernels::cuda {

// The largest head_dim.
inline constexpr int64_t kMostHeadDim = 256;

// What attend() reads of a cache: KEYS and VALUES [kv_heads][capacity][padded_dim].
struct CacheView {
  AttentionShape shape;
  int64_t capacity;
  int64_t length;
  const __nv_bfloat16* keys;
  const __nv_bfloat16* values;
};

// Positions of a cache are as wide as the kernels' tiles, head_dim filled up with zeros: 64, 128 or
// 256.
int64_t padded_dim(int64_t head_dim);

// What store_positions() writes of a cache.
struct CacheRows {
  __nv_bfloat16* keys;
  __nv_bfloat16* values;
};

// Puts M rows of KEYS and VALUES [m, kv_heads * head_dim] behind position LENGTH of a cache.
// Asynchronous on STREAM.
void store_positions(const AttentionShape& shape, int64_t capacity, int64_t length, int64_t m,
                     const __nv_bfloat16* keys, const __nv_bfloat16* values, const CacheRows& cache,
                     cudaStream_t stream);

// Partial results of blocks that share out keys; grows as needed, one per stream.
struct AttentionWorkspace {
  DeviceArray<float> sums;    // [splits][kv_heads][rows][padded_dim]
  DeviceArray<float2> stats;  // [splits][kv_heads][rows]: largest score, sum of exponentials
};

// See Backend::attend: OUT [m, heads * head_dim] of queries Q, the last M positions of CACHE.
// Scores and sums are FP32; a probability is rounded to BF16 before it multiplies and is summed.
// Asynchronous on STREAM.
void attend(const CacheView& cache, int64_t m, const __nv_bfloat16* q, __nv_bfloat16* out,
            AttentionWorkspace& workspace, cudaStream_t stream);

// What attend() may differ from exact attention on BF16 queries, keys and values before it rounds
// its results to BF16: an output's error is at most this times the sum of |p v|, where a score's
// products add up to MAGNITUDE at most in absolute value, over POSITIONS keys.
double attention_error(const AttentionShape& shape, int64_t positions, double magnitude);

}  // namespace micromix::kernels::cuda
