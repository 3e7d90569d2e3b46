#include "micromix/kernels/cuda/block_scaled/product.h"

#include <algorithm>

#include "micromix/kernels/cuda/block_scaled/product.cuh"
#include "micromix/kernels/cuda/launch.h"

namespace micromix::kernels::cuda::block_scaled {
namespace {

// Few rows are a read of the weight: eight warps take every eighth chunk of 16 of its rows.
using Rows8 = TileShape<1, 1, 1, 1, 8, 3>;
using Rows16 = TileShape<1, 2, 1, 1, 8, 3>;
using Rows32 = TileShape<2, 4, 2, 1, 4, 3>;
using Rows128 = TileShape<4, 4, 2, 4, 1, 4>;

// What a block of compute capability 12.x may have; less than any other's since 8.0 but 8.6's and
// 8.9's, which have as much.
constexpr int kMostSharedBytes = 99 * 1024;
constexpr Layout kWidest = {record_bytes(mx::Format::kE4M3), chunk_bytes(mx::Format::kE4M3)};
static_assert(kWidest.bytes<Rows8>() <= kMostSharedBytes);
static_assert(kWidest.bytes<Rows16>() <= kMostSharedBytes);
static_assert(kWidest.bytes<Rows32>() <= kMostSharedBytes);
static_assert(kWidest.bytes<Rows128>() <= kMostSharedBytes);

struct Call {
  const WeightView& weight;
  const CodeRows& x;
  __nv_bfloat16* y;
  cudaStream_t stream;
  bool overlap;
};

Layout make_layout(const WeightView& weight, const CodeRows& x) {
  Layout layout{};
  for (int i = 0; i < weight.segment_count; ++i) {
    layout.record_bytes = std::max(layout.record_bytes, record_bytes(weight.segments[i].format));
    layout.row_bytes = std::max(layout.row_bytes, chunk_bytes(x.segments[i].format));
  }
  return layout;
}

template <typename Shape>
TileOrder make_order(const WeightView& weight, int64_t m) {
  constexpr int kGroup = 16;
  return {divide_up(weight.n, Shape::kColumns), divide_up(m, Shape::kRows), kGroup};
}

template <typename Mma, typename Shape>
void launch_shape(const Call& call) {
  const Layout layout = make_layout(call.weight, call.x);
  const TileOrder order = make_order<Shape>(call.weight, call.x.m);
  const int shared_bytes = layout.bytes<Shape>();
  const auto kernel = &multiply_block_scaled<Mma, Shape>;
  const int at_once =
      device_limits().multiprocessors * blocks_per_processor(kernel, Shape::kThreads, shared_bytes);
  launch(kernel, {dim3(std::min(order.count(), at_once)), Shape::kThreads, shared_bytes},
         call.stream, call.overlap, call.weight, call.x, call.y, order, layout);
}

template <typename Mma>
void launch_best(const Call& call) {
  const int64_t m = call.x.m;
  if (m <= Rows8::kRows) return launch_shape<Mma, Rows8>(call);
  if (m <= Rows16::kRows) return launch_shape<Mma, Rows16>(call);
  // Large tiles read the least, once there are enough of them.
  if (m <= 64 || make_order<Rows128>(call.weight, m).count() < device_limits().multiprocessors) {
    return launch_shape<Mma, Rows32>(call);
  }
  launch_shape<Mma, Rows128>(call);
}

// What a thread of native code for this device says of it.
__global__ void report_native(int* native) {
#ifdef MICROMIX_BLOCK_SCALED_MMA
  *native = 1;
#else
  *native = 0;
#endif
}

bool ask_device() {
  DeviceArray<int> native(1);
  report_native<<<1, 1>>>(native.data());
  check(cudaGetLastError(), "looking for block-scaled instructions");
  return native.to_host()[0] != 0;
}

}  // namespace

bool native_instructions_work() {
  static const bool works = ask_device();
  return works;
}

Instructions best_instructions() {
  return native_instructions_work() ? Instructions::kNative : Instructions::kEmulated;
}

void multiply(const Weight& weight, const CodeRows& x, __nv_bfloat16* y, cudaStream_t stream,
              Instructions instructions, bool overlap) {
  const Call call = {weight.view(), x, y, stream, overlap};
  if (instructions == Instructions::kNative) {
    launch_best<NativeMma>(call);
  } else {
    launch_best<EmulatedMma>(call);
  }
}

int64_t product_additions(int64_t k) {
  // A chain of all instructions that K takes, padded: at most two of 32 products and the sum before
  // them for 64 channels; then sums of groups and the bias.
  const int64_t chunks = (k + kChunk - 1) / kChunk + kMostSegments - 1;
  return chunks * 2 * 33 + 8 + 1;
}

}  // namespace micromix::kernels::cuda::block_scaled
