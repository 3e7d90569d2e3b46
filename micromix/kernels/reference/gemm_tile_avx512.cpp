#define GEMM_TILE gemm_tile_avx512
#include "micromix/kernels/reference/gemm_tile.inc"
