// The inner kernel of gemm.cpp, compiled once per instruction set.
#pragma once

#include <cstdint>

namespace micromix::kernels {

inline constexpr int64_t kTileRows = 6;
inline constexpr int64_t kTileColumns = 16;

// c[r * c_stride + j] (+)= sum over p < depth of a[r * a_stride + p] * panel[p * 16 + j], for
// r < rows <= 6 and j < 16; ACCUMULATE adds to C, else C is overwritten.
using GemmTile = void (*)(int64_t rows, int64_t depth, const float* a, int64_t a_stride,
                          const float* panel, float* c, int64_t c_stride, bool accumulate);

void gemm_tile_portable(int64_t, int64_t, const float*, int64_t, const float*, float*, int64_t,
                        bool);
#if defined(__x86_64__)
void gemm_tile_avx2(int64_t, int64_t, const float*, int64_t, const float*, float*, int64_t, bool);
void gemm_tile_avx512(int64_t, int64_t, const float*, int64_t, const float*, float*, int64_t, bool);
#endif

}  // namespace micromix::kernels
