#define GEMM_TILE gemm_tile_portable
#include "micromix/kernels/reference/gemm_tile.inc"
