#include "micromix/kernels/reference/gemm.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "micromix/kernels/reference/gemm_tile.h"

namespace micromix::kernels {
namespace {

// Four panels of 16 columns x 512 deep are 128 KiB: they stay in the second-level cache.
constexpr int64_t kBlockColumns = 4 * kTileColumns;
// Rows a thread takes at a time: enough uses of a decoded panel that decoding does not show.
constexpr int64_t kBlockRows = 256;

GemmTile choose_tile() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return gemm_tile_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return gemm_tile_avx2;
#endif
  return gemm_tile_portable;
}

// Decodes B[row..row+16, column..column+depth] to panel[p][j]; rows from N on are zero.
void pack_panel(const RowSource& b, int64_t n, int64_t row, int64_t column, int64_t depth,
                float* panel) {
  float line[kGemmDepth];
  for (int64_t j = 0; j < kTileColumns; ++j) {
    if (row + j < n) {
      b.decode(row + j, column, depth, line);
    } else {
      std::fill(line, line + depth, 0.0f);
    }
    for (int64_t p = 0; p < depth; ++p) panel[p * kTileColumns + j] = line[p];
  }
}

// One tile, at the right edge by way of a full-width copy.
void run_tile(GemmTile tile, int64_t rows, int64_t columns, int64_t depth, const float* a,
              int64_t a_stride, const float* panel, float* c, int64_t c_stride, bool accumulate) {
  if (columns >= kTileColumns) {
    tile(rows, depth, a, a_stride, panel, c, c_stride, accumulate);
    return;
  }
  float edge[kTileRows * kTileColumns];
  tile(rows, depth, a, a_stride, panel, edge, kTileColumns, false);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < columns; ++j) {
      float& out = c[r * c_stride + j];
      const float sum = edge[r * kTileColumns + j];
      out = accumulate ? out + sum : sum;
    }
  }
}

// C[0..m, column..column+64] on this thread.
void gemm_columns(int64_t m, int64_t n, int64_t k, int64_t column, const float* a, int64_t a_stride,
                  const RowSource& b, float* c, int64_t c_stride) {
  static const GemmTile tile = choose_tile();
  thread_local std::vector<float> buffer(kBlockColumns * kGemmDepth);
  const int64_t columns = std::min(kBlockColumns, n - column);
  for (int64_t depth_begin = 0; depth_begin < k; depth_begin += kGemmDepth) {
    const int64_t depth = std::min(kGemmDepth, k - depth_begin);
    for (int64_t j = 0; j < columns; j += kTileColumns) {
      pack_panel(b, n, column + j, depth_begin, depth, buffer.data() + j * kGemmDepth);
    }
    for (int64_t row = 0; row < m; row += kTileRows) {
      for (int64_t j = 0; j < columns; j += kTileColumns) {
        run_tile(tile, std::min(kTileRows, m - row), columns - j, depth,
                 a + row * a_stride + depth_begin, a_stride, buffer.data() + j * kGemmDepth,
                 c + row * c_stride + column + j, c_stride, depth_begin > 0);
      }
    }
  }
}

}  // namespace

void FloatRows::decode(int64_t row, int64_t column, int64_t count, float* out) const {
  std::memcpy(out, data_ + row * stride_ + column, count * sizeof(float));
}

void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride, const RowSource& b,
          float* c, int64_t c_stride) {
  for (int64_t column = 0; column < n; column += kBlockColumns) {
    gemm_columns(m, n, k, column, a, a_stride, b, c, c_stride);
  }
}

void parallel_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_stride,
                   const RowSource& b, float* c, int64_t c_stride) {
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t row = 0; row < m; row += kBlockRows) {
    for (int64_t column = 0; column < n; column += kBlockColumns) {
      gemm_columns(std::min(kBlockRows, m - row), n, k, column, a + row * a_stride, a_stride, b,
                   c + row * c_stride, c_stride);
    }
  }
}

}  // namespace micromix::kernels
