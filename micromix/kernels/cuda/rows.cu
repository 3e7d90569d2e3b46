#include "micromix/kernels/cuda/rows.h"

#include "micromix/kernels/cuda/device.h"
#include "micromix/kernels/cuda/host_device.h"

namespace micromix::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = 4;  // vectors of a block of place_heads

int blocks_of(int64_t count, int64_t each) {
  return static_cast<int>((count + each - 1) / each);
}

__global__ void add_kernel(int64_t count, float* sum, const __nv_bfloat16* term) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) sum[i] += __bfloat162float(term[i]);
}

__global__ void widen_kernel(int64_t count, const __nv_bfloat16* x, float* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = __bfloat162float(x[i]);
}

// A warp a vector; lane l holds the pairs (i, i + half) of i = l, l + 32, ...
__global__ void place_heads_kernel(int64_t vectors, int heads, int head_dim, __nv_bfloat16* x,
                                   const float* gain, float eps, const float* angles) {
  const int64_t vector = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (vector >= vectors) return;
  const int half = head_dim / 2;
  __nv_bfloat16* const first = x + vector * head_dim;
  __nv_bfloat16* const second = first + half;
  const float* const cosines = angles + vector / heads * head_dim;
  const float* const sines = cosines + half;
  float factor = 1;
  if (gain != nullptr) {
    float squares = 0;
    for (int i = lane; i < head_dim; i += kWarp) {
      const float value = __bfloat162float(first[i]);
      squares = __fmaf_rn(value, value, squares);
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      squares += __shfl_xor_sync(~0u, squares, distance);
    }
    factor = 1 / sqrtf(squares / static_cast<float>(head_dim) + eps);
  }
  for (int i = lane; i < half; i += kWarp) {
    float a = __bfloat162float(first[i]);
    float b = __bfloat162float(second[i]);
    if (gain != nullptr) {
      a = a * factor * gain[i];
      b = b * factor * gain[half + i];
    }
    first[i] = __float2bfloat16_rn(a * cosines[i] - b * sines[i]);
    second[i] = __float2bfloat16_rn(b * cosines[i] + a * sines[i]);
  }
}

}  // namespace

void add(int64_t count, float* sum, const __nv_bfloat16* term, cudaStream_t stream) {
  if (count == 0) return;
  add_kernel<<<blocks_of(count, kThreads), kThreads, 0, stream>>>(count, sum, term);
  check(cudaGetLastError(), "add");
}

void widen(int64_t count, const __nv_bfloat16* x, float* out, cudaStream_t stream) {
  if (count == 0) return;
  widen_kernel<<<blocks_of(count, kThreads), kThreads, 0, stream>>>(count, x, out);
  check(cudaGetLastError(), "widen");
}

void place_heads(int64_t m, int64_t heads, int64_t head_dim, __nv_bfloat16* x, const float* gain,
                 float eps, const float* angles, cudaStream_t stream) {
  if (m == 0) return;
  const int64_t vectors = m * heads;
  place_heads_kernel<<<blocks_of(vectors, kWarps), kWarps * kWarp, 0, stream>>>(
      vectors, static_cast<int>(heads), static_cast<int>(head_dim), x, gain, eps, angles);
  check(cudaGetLastError(), "place_heads");
}

}  // namespace micromix::kernels::cuda
