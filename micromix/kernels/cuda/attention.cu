#include "micromix/kernels/cuda/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>

#include "micromix/kernels/cuda/host_device.h"

namespace micromix::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kWarpRows = 16;  // of an mma.m16n8k16
constexpr int kRows = kWarps * kWarpRows;
// Keys that a block takes at least where keys are shared out: its results cost a pass of their own.
constexpr int kLeastKeys = 256;

struct Arguments {
  int group;  // query heads of a key head
  int kv_heads;
  int head_dim;
  int64_t rows;  // of a key head: m * group, row r being query r / group
  int64_t past;  // positions before the first query
  int64_t length;
  int64_t capacity;
  int64_t split_keys;  // keys of a split
  float scale;         // log2(e) / sqrt(head_dim)
  const __nv_bfloat16* q;
  const __nv_bfloat16* keys;
  const __nv_bfloat16* values;
  __nv_bfloat16* out;
  float* sums;  // with more than one split
  float2* stats;
};

// Where the query or output of row ROW of key head HEAD lies.
__device__ int64_t row_offset(const Arguments& a, int head, int64_t row) {
  const int64_t heads = int64_t{a.kv_heads} * a.group;
  return (row / a.group * heads + int64_t{head} * a.group + row % a.group) * a.head_dim;
}

__device__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes to shared memory, zeros unless VALID.
__device__ void copy_async(__nv_bfloat16* to, const __nv_bfloat16* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}

__device__ void load_matrices(uint32_t (&regs)[4], const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(regs[0]), "=r"(regs[1]), "=r"(regs[2]), "=r"(regs[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ void load_matrices_transposed(uint32_t (&regs)[4], const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(regs[0]), "=r"(regs[1]), "=r"(regs[2]), "=r"(regs[3])
               : "r"(shared_address(row))
               : "memory");
}

// C [16, 8] += A [16, 16] B [16, 8].
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ uint32_t pack(__nv_bfloat16 low, __nv_bfloat16 high) {
  return __bfloat16_as_ushort(low) | uint32_t{__bfloat16_as_ushort(high)} << 16;
}

template <int kDim>
struct Tile {
  static_assert(kDim % 16 == 0);
  // Keys of a step: with two steps in flight, what fits 99 KB (sm_86).
  static constexpr int kKeys = kDim <= 128 ? 64 : 16;
  // A row's stride is an odd multiple of 16 bytes: eight rows lie in different banks.
  static constexpr int kStride = kDim + 8;
  static constexpr int kStage = 2 * kKeys * kStride;  // keys, then values
  static constexpr int kBytes = (kRows * kStride + 2 * kStage) * 2;
  static_assert(kBytes <= 99 * 1024);

  // Begins to copy the keys and values of positions FIRST to FIRST + kKeys - 1; zeros past the end,
  // which a probability of zero must not turn into NaN.
  static __device__ void load_step(const Arguments& a, int head, int64_t first,
                                   __nv_bfloat16* stage) {
    constexpr int kPieces = kDim / 8;
    for (int i = threadIdx.x; i < kKeys * kPieces; i += kThreads) {
      const int key = i / kPieces;
      const int channel = i % kPieces * 8;
      const bool valid = first + key < a.length;
      const int64_t from =
          (int64_t{head} * a.capacity + (valid ? first + key : 0)) * kDim + channel;
      copy_async(stage + key * kStride + channel, a.keys + from, valid);
      copy_async(stage + (kKeys + key) * kStride + channel, a.values + from, valid);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  static __device__ void load_queries(const Arguments& a, int head, int64_t first,
                                      __nv_bfloat16* queries) {
    constexpr int kPieces = kDim / 8;
    for (int i = threadIdx.x; i < kRows * kPieces; i += kThreads) {
      const int64_t row = first + i / kPieces;
      const int channel = i % kPieces * 8;
      __nv_bfloat16* const to = queries + i / kPieces * kStride + channel;
      const int count = row < a.rows ? min(8, a.head_dim - channel) : 0;
      const __nv_bfloat16* const from = count > 0 ? a.q + row_offset(a, head, row) + channel : a.q;
      if (count == 8 && a.head_dim % 8 == 0) {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
      } else {
        for (int j = 0; j < 8; ++j) to[j] = j < count ? from[j] : __ushort_as_bfloat16(0);
      }
    }
  }
};

// Grid: (tiles of rows, key heads, splits of the keys).
//
// Of the accumulators of an mma, lane l holds columns 2 (l % 4) and the next of rows l / 4 (the
// first two) and l / 4 + 8.
template <int kDim>
__global__ void __launch_bounds__(kThreads) attend_kernel(const Arguments a) {
  using Tile = Tile<kDim>;
  constexpr int kKeyTiles = Tile::kKeys / 8;
  constexpr int kDimTiles = kDim / 8;
  constexpr int kStride = Tile::kStride;
  extern __shared__ __align__(16) __nv_bfloat16 shared[];
  __nv_bfloat16* const queries = shared;
  __nv_bfloat16* const stages = shared + kRows * kStride;
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int head = blockIdx.y;
  // The last rows see the most keys: they begin first.
  const int64_t first_row = int64_t{gridDim.x - 1 - blockIdx.x} * kRows;
  const int64_t last_row = min(first_row + kRows, a.rows) - 1;
  const int64_t begin = int64_t{blockIdx.z} * a.split_keys;
  const int64_t end = min(begin + a.split_keys, a.past + last_row / a.group + 1);
  const int64_t warp_row = first_row + warp * kWarpRows;
  const bool has_rows = warp_row < a.rows;
  const int64_t rows[2] = {warp_row + lane / 4, warp_row + lane / 4 + 8};
  const int64_t visible[2] = {a.past + rows[0] / a.group + 1, a.past + rows[1] / a.group + 1};

  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0, 0};  // of this lane's columns
  float sums[kDimTiles][4] = {};

  if (begin < end) Tile::load_step(a, head, begin, stages);
  Tile::load_queries(a, head, first_row, queries);
  int stage = 0;
  for (int64_t first = begin; first < end; first += Tile::kKeys, stage ^= 1) {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();  // this step's keys are here, and nobody reads those of the last any more
    if (first + Tile::kKeys < end) {
      Tile::load_step(a, head, first + Tile::kKeys, stages + (stage ^ 1) * Tile::kStage);
    }
    if (!has_rows) continue;
    const __nv_bfloat16* const keys = stages + stage * Tile::kStage;
    const __nv_bfloat16* const values = keys + Tile::kKeys * kStride;

    float scores[kKeyTiles][4] = {};
#pragma unroll
    for (int d = 0; d < kDim; d += 16) {
      uint32_t q[4];
      load_matrices(q, queries + (warp * kWarpRows + lane % 16) * kStride + d + lane / 16 * 8);
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t k[4];
        const int key = n * 8 + lane / 16 * 8 + lane % 8;
        load_matrices(k, keys + key * kStride + d + lane / 8 % 2 * 8);
        multiply_add(scores[n], q, k[0], k[1]);
        multiply_add(scores[n + 1], q, k[2], k[3]);
      }
    }

    // The probabilities of two tiles of scores, as the left operand of 16 keys.
    uint32_t probabilities[kKeyTiles / 2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float block_largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores[n][2 * half + j];
          if (first + n * 8 + lane % 4 * 2 + j >= visible[half]) score = -INFINITY;
          block_largest = fmaxf(block_largest, score);
        }
      }
      block_largest = fmaxf(block_largest, __shfl_xor_sync(~0u, block_largest, 1));
      block_largest = fmaxf(block_largest, __shfl_xor_sync(~0u, block_largest, 2));
      const float before = largest[half];
      largest[half] = fmaxf(before, block_largest);
      const float factor =
          before == largest[half] ? 1.0f : exp2f((before - largest[half]) * a.scale);
      total[half] *= factor;
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) {
        sums[n][2 * half] *= factor;
        sums[n][2 * half + 1] *= factor;
      }
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        __nv_bfloat16 p[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const bool seen = first + n * 8 + lane % 4 * 2 + j < visible[half];
          const float score = scores[n][2 * half + j];
          p[j] = __float2bfloat16_rn(seen ? exp2f((score - largest[half]) * a.scale) : 0.0f);
          total[half] += __bfloat162float(p[j]);
        }
        probabilities[n / 2][n % 2 * 2 + half] = pack(p[0], p[1]);
      }
    }

#pragma unroll
    for (int k = 0; k < kKeyTiles / 2; ++k) {
#pragma unroll
      for (int n = 0; n < kDimTiles; n += 2) {
        uint32_t v[4];
        const int key = k * 16 + lane / 8 % 2 * 8 + lane % 8;
        load_matrices_transposed(v, values + key * kStride + n * 8 + lane / 16 * 8);
        multiply_add(sums[n], probabilities[k], v[0], v[1]);
        multiply_add(sums[n + 1], probabilities[k], v[2], v[3]);
      }
    }
  }
  if (!has_rows) return;

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(~0u, total[half], 1);
    total[half] += __shfl_xor_sync(~0u, total[half], 2);
    const int64_t row = rows[half];
    if (row >= a.rows) continue;
    if (gridDim.z > 1) {
      const int64_t at = (int64_t{blockIdx.z} * a.kv_heads + head) * a.rows + row;
      if (lane % 4 == 0) a.stats[at] = make_float2(largest[half], total[half]);
#pragma unroll
      for (int n = 0; n < kDimTiles; ++n) {
        float* const to = a.sums + at * kDim + n * 8 + lane % 4 * 2;
        to[0] = sums[n][2 * half];
        to[1] = sums[n][2 * half + 1];
      }
      continue;
    }
    const float factor = 1 / total[half];
    __nv_bfloat16* const to = a.out + row_offset(a, head, row);
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int channel = n * 8 + lane % 4 * 2 + j;
        if (channel < a.head_dim) to[channel] = __float2bfloat16_rn(sums[n][2 * half + j] * factor);
      }
    }
  }
}

// Grid: (rows, key heads); a thread a channel.
__global__ void join_kernel(const Arguments a, int splits, int dim) {
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y;
  const int64_t stride = int64_t{a.kv_heads} * a.rows;  // from a split to the next
  const int64_t at = head * a.rows + row;
  const int channel = threadIdx.x;
  float largest = -INFINITY;
  for (int i = 0; i < splits; ++i) largest = fmaxf(largest, a.stats[i * stride + at].x);
  float total = 0, sum = 0;
  for (int i = 0; i < splits; ++i) {
    const float2 stats = a.stats[i * stride + at];
    // A split past this row's keys has seen nothing.
    const float factor = stats.x == largest ? 1.0f : exp2f((stats.x - largest) * a.scale);
    total += stats.y * factor;
    sum += a.sums[(i * stride + at) * dim + channel] * factor;
  }
  if (channel < a.head_dim) {
    a.out[row_offset(a, head, row) + channel] = __float2bfloat16_rn(sum / total);
  }
}

// Grid: (numbers [m, kv_heads, dim], keys and values).
__global__ void store_kernel(int kv_heads, int head_dim, int dim, int64_t capacity, int64_t length,
                             int64_t count, const __nv_bfloat16* keys, const __nv_bfloat16* values,
                             const CacheRows cache) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int channel = static_cast<int>(i % dim);
  const int64_t head = i / dim % kv_heads;
  const int64_t row = i / dim / kv_heads;
  const __nv_bfloat16* const from = blockIdx.y == 0 ? keys : values;
  __nv_bfloat16* const to = blockIdx.y == 0 ? cache.keys : cache.values;
  to[(head * capacity + length + row) * dim + channel] =
      channel < head_dim ? from[(row * kv_heads + head) * head_dim + channel]
                         : __ushort_as_bfloat16(0);
}

template <int kDim>
void launch(Arguments arguments, AttentionWorkspace& workspace, cudaStream_t stream) {
  constexpr int kBytes = Tile<kDim>::kBytes;
  static const int kProcessors = [] {
    check(cudaFuncSetAttribute(attend_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               kBytes),
          "attend");
    return device_limits().multiprocessors;
  }();
  const int64_t tiles = (arguments.rows + kRows - 1) / kRows;
  const int64_t wanted = kProcessors / (tiles * arguments.kv_heads);
  const int64_t most = (arguments.length + kLeastKeys - 1) / kLeastKeys;
  const int64_t shared_out = std::clamp<int64_t>(wanted, 1, most);
  constexpr int kKeys = Tile<kDim>::kKeys;
  arguments.split_keys =
      ((arguments.length + shared_out - 1) / shared_out + kKeys - 1) / kKeys * kKeys;
  const auto splits =
      static_cast<unsigned>((arguments.length + arguments.split_keys - 1) / arguments.split_keys);
  if (splits > 1) {
    const int64_t results = splits * arguments.kv_heads * arguments.rows;
    arguments.sums = workspace.sums.resize(results * kDim);
    arguments.stats = workspace.stats.resize(results);
  }
  const auto heads = static_cast<unsigned>(arguments.kv_heads);
  attend_kernel<kDim>
      <<<dim3(static_cast<unsigned>(tiles), heads, splits), kThreads, kBytes, stream>>>(arguments);
  check(cudaGetLastError(), "attend");
  if (splits > 1) {
    join_kernel<<<dim3(static_cast<unsigned>(arguments.rows), heads), kDim, 0, stream>>>(
        arguments, static_cast<int>(splits), kDim);
    check(cudaGetLastError(), "attend");
  }
}

}  // namespace

int64_t padded_dim(int64_t head_dim) {
  assert(head_dim <= kMostHeadDim);
  return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
}

void store_positions(const AttentionShape& shape, int64_t capacity, int64_t length, int64_t m,
                     const __nv_bfloat16* keys, const __nv_bfloat16* values, const CacheRows& cache,
                     cudaStream_t stream) {
  constexpr int kBlock = 256;
  const int64_t dim = padded_dim(shape.head_dim);
  const int64_t count = m * shape.kv_heads * dim;
  if (count == 0) return;
  const dim3 grid(static_cast<unsigned>((count + kBlock - 1) / kBlock), 2);
  store_kernel<<<grid, kBlock, 0, stream>>>(static_cast<int>(shape.kv_heads),
                                            static_cast<int>(shape.head_dim), static_cast<int>(dim),
                                            capacity, length, count, keys, values, cache);
  check(cudaGetLastError(), "store_positions");
}

void attend(const CacheView& cache, int64_t m, const __nv_bfloat16* q, __nv_bfloat16* out,
            AttentionWorkspace& workspace, cudaStream_t stream) {
  if (m == 0) return;
  const auto [heads, kv_heads, head_dim] = cache.shape;
  Arguments arguments{};
  arguments.group = static_cast<int>(heads / kv_heads);
  arguments.kv_heads = static_cast<int>(kv_heads);
  arguments.head_dim = static_cast<int>(head_dim);
  arguments.rows = m * arguments.group;
  arguments.past = cache.length - m;
  arguments.length = cache.length;
  arguments.capacity = cache.capacity;
  arguments.scale = static_cast<float>(M_LOG2E / std::sqrt(static_cast<double>(head_dim)));
  arguments.q = q;
  arguments.keys = cache.keys;
  arguments.values = cache.values;
  arguments.out = out;
  switch (padded_dim(head_dim)) {
    case 64:
      return launch<64>(arguments, workspace, stream);
    case 128:
      return launch<128>(arguments, workspace, stream);
    default:
      return launch<256>(arguments, workspace, stream);
  }
}

// An mma of depth 16 adds 17 numbers and truncates, so a chain over N products is N / 16 * 17
// additions of an error of 2^-23 each. A probability is rounded to BF16 (2^-8) and comes from exp2
// (2 ulp; its argument has two roundings, each worth the argument's size, which is twice a score's
// at most); it is rescaled once a step. A weight, the quotient of a probability and their sum, is
// then off by twice that, relative; its products with values are summed one by one, and splits once
// more.
double attention_error(const AttentionShape& shape, int64_t positions, double magnitude) {
  const double scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
  const auto depth = static_cast<double>(padded_dim(shape.head_dim));
  const auto keys = static_cast<double>((positions + 63) / 64 * 64);
  const double steps = keys / 16 + 1;
  const double score = scale * magnitude * (depth / 16 * 17 + 3) * 0x1p-23;
  const double rescaling = steps * (6 + 4 * scale * magnitude) * 0x1p-23;
  const double probability = 0x1p-8 + score + rescaling + 6 * 0x1p-23;
  const double sums = (keys / 16 * 17 + steps + 4) * 0x1p-23;
  return 2 * probability / (1 - probability) * (1 + sums) + 2 * sums;
}

}  // namespace micromix::kernels::cuda
