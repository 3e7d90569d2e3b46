#define GEMM_TILE gemm_tile_avx2
#include "micromix/kernels/reference/gemm_tile.inc"
