// The inner kernels of the CPU backend, one table per instruction set, and the layouts they share.
//
// A product of two blocks is computed in one of two ways:
//
// - integer, where both elements are E2M1 or E2M3: twice an E2M1 is an integer in +-12, eight times
//   an E2M3 one in +-60. Weights are unsigned bytes, that integer + 12 or + 60, activations signed
//   ones; a sum of 32 products starts at -12 (-60) times the sum of the activations, so it comes
//   out right and exact.
//   The block's sum is multiplied by 2^(sx + sw - shifts), a power of two made by adding exponents,
//   and added to an FP32 sum.
// - wide, for every other pair and for BF16: elements times their scales, which BF16 holds exactly,
//   into vdpbf16ps, or as FP32. Products are added to the FP32 sum as they come; for few rows
//   on AVX-512 a block's sum of elements times scaled activations is scaled and added.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "micromix/kernels/linear.h"
#include "micromix/mx/format.h"

namespace micromix::kernels::cpu {

// Output columns (rows of W) of a panel: two AVX-512 vectors.
inline constexpr int64_t kPanel = 32;
// Rows of an activation tile: 8 of BF16 are a vector of 16 bytes when it is quantized, and batches
// and chunks of prompts are whole numbers of them.
inline constexpr int kTileRows = 8;
// Up to so many rows take a weight's packed blocks in registers: their sums and those of a block
// fit.
inline constexpr int kPackedRows = 6;
// Channels that share a 32-bit lane of the integer kernel.
inline constexpr int kStep = 4;

// Scale bytes that the fast kernels take: 2^-50 to 2^45. The exponents of any two then add up to a
// normal FP32 number, also less the shifts of 6; products of E4M3 are 2^-118 at least, and sums of
// 2^16 of them stay below 2^125.
inline constexpr uint8_t kLowestScale = 77;
inline constexpr uint8_t kHighestScale = 172;

constexpr bool is_common(int scale) {
  return scale >= kLowestScale && scale <= kHighestScale;
}

constexpr bool is_integer(mx::Format format) {
  return format == mx::Format::kE2M1 || format == mx::Format::kE2M3;
}

// Whether blocks of WEIGHT and ACTIVATION multiply as integers.
constexpr bool is_integer(mx::Format weight, std::optional<mx::Format> activation) {
  return activation && is_integer(weight) && is_integer(*activation);
}

// log2 of what makes a format's elements integers.
constexpr int integer_shift(mx::Format format) {
  return format == mx::Format::kE2M1 ? 1 : 3;
}

// Of the format's largest element: what is added to make weights unsigned.
constexpr int integer_offset(mx::Format format) {
  return format == mx::Format::kE2M1 ? 12 : 60;
}

// Activations lie in tiles of up to 8 rows, all their blocks one after another. A block of a tile
// of R rows, WIDE_BYTES being the size of a wide value:
//   int32 [R]        (sx - 127 - integer shift) << 23; wide: without a shift
//   int32 [2][R]     integer only: where block sums start, for weights of offset 12 and of 60
//   integer: int8 [8][R][4]; wide: BF16 [16][R][2] or FP32 [32][R], elements times their scale
//   where that is common, else as they are
// So it is R tiles of one row, interleaved by 32 bits.
constexpr int64_t tile_block_bytes(bool integer, int wide_bytes, int rows) {
  return rows * (integer ? 12 + 32 : int64_t{4} + 32 * wide_bytes);
}

// Where in an integer block the sums' starts for weights of FORMAT lie.
constexpr int64_t starts_offset(mx::Format weight, int rows) {
  return (weight == mx::Format::kE2M1 ? 1 : 2) * int64_t{4} * rows;
}

// An expanded block of a panel: integer u8 [8][32][4] (step, column, channel within the step); wide
// BF16 [16][32][2] or FP32 [32][32] (channel, column), elements times their scale.
constexpr int64_t panel_block_bytes(bool integer, int wide_bytes) {
  return kPanel * mx::kBlockSize * (integer ? 1 : wide_bytes);
}

// How one segment of an input is quantized into tiles.
struct TileSegment {
  std::optional<mx::Format> format;  // none: BF16 values
  bool integer;  // the kind of the product; the readers' weight formats decide it together
  int64_t blocks;
};

// What a row holds that the fast kernels cannot multiply.
struct RowFlags {
  bool tiny = false;   // a block scaled below kLowestScale
  bool large = false;  // above kHighestScale, or BF16 values of 2^54 and more
  bool nan = false;    // a NaN scale: every output of the row is NaN
};

// Part of a product: BLOCKS blocks of one tile and one panel, summed onto C [rows][32].
struct TileProduct {
  int rows;
  int64_t blocks;
  const std::byte* a;  // tile blocks
  const std::byte* w;  // expanded panel blocks; or packed ones
  // Not of expanded wide blocks: [blocks][32], and what they scale.
  const uint8_t* scales;
  mx::Format weight_format;
  float* c;
  const std::byte* next = a;  // a hint: blocks of the tile that is multiplied after this one
  // Of packed integer blocks and more than kPackedRows: where these are left expanded.
  std::byte* expanded = nullptr;
};

struct Kernels {
  std::string_view name;
  int wide_bytes;

  // BLOCKS packed blocks of a panel (panels.h) to expanded ones. Wide ones of scales that are not
  // common are anything.
  void (*expand_integer)(mx::Format format, const uint8_t* codes, int64_t blocks, std::byte* out);
  void (*expand_wide)(mx::Format format, const uint8_t* codes, const uint8_t* scales,
                      int64_t blocks, std::byte* out);
  // BLOCKS blocks of BF16 [16][32][2] to wide ones; null where they are that.
  void (*expand_pairs)(const std::byte* pairs, int64_t blocks, std::byte* out);
  // COLUMNS <= 32 rows of BF16, STRIDE bytes apart, 32 BLOCKS values of each, to wide blocks;
  // absent columns are zero.
  void (*expand_dense)(const std::byte* rows, int64_t stride, int64_t columns, int64_t blocks,
                       std::byte* out);

  void (*multiply_integer)(const TileProduct& product);
  void (*multiply_wide)(const TileProduct& product);
  // The same from packed blocks, expanded in registers: for up to kPackedRows rows, or of integers
  // for a first tile, which leaves them expanded for its other rows and for other tiles. Null where
  // that is not faster.
  void (*multiply_packed_integer)(const TileProduct& product);
  void (*multiply_packed_wide)(const TileProduct& product);
  // C [1][32] += one row times COLUMNS rows of BF16, STRIDE bytes apart, that begin at W; C's other
  // columns stay. Null where that is not faster.
  void (*multiply_dense_row)(const TileProduct& product, int64_t stride, int64_t columns);
  // As the first two for activations whose scales are any but NaN.
  void (*multiply_integer_any)(const TileProduct& product);
  void (*multiply_wide_any)(const TileProduct& product);

  // Rounds a row X to BF16, gathers it by PERMUTATION (null: identity) and quantizes it into the
  // blocks of a tile of one row.
  RowFlags (*quantize_row)(const float* x, const int32_t* permutation, mx::ScaleRule rule,
                           std::span<const TileSegment> segments, std::byte* out);

  // The same of 2 to 8 rows [k] at once, as a tile, of 8 rows PAST_CACHES if wanted, which is
  // for tiles that other threads read. SCRATCH has room for 16 k bytes, it and OUT are aligned to
  // 64 and to 32. False where a scale is not common or a segment is BF16: OUT is anything then.
  // Null where nothing is faster than row by row.
  bool (*quantize_tile)(const float* const* rows, int count, int64_t k, const int32_t* permutation,
                        mx::ScaleRule rule, std::span<const TileSegment> segments, bool past_caches,
                        std::byte* scratch, std::byte* out);

  // Y [rows][columns], rows STRIDE floats apart, = SUMS [rows][32] + BIAS ([columns], or null),
  // each rounded to BF16 where ROUND.
  void (*store_rows)(const float* sums, int64_t rows, int64_t columns, const float* bias,
                     bool round, float* y, int64_t stride);

  // A step of an online softmax: PANELS of 32 scores, STRIDE floats apart, of which the first COUNT
  // count and the others get probability 0. LARGEST is the largest score so far, TOTAL the sum of
  // exp(SCALE * (score - LARGEST)), each rounded to BF16; both are brought up to date. OUT becomes
  // a wide tile of one row of the new exponentials. Returns what older ones must be multiplied by.
  float (*softmax_row)(const float* scores, int64_t stride, int64_t panels, int64_t count,
                       float scale, float& largest, float& total, std::byte* out);

  // OUT = X / sqrt(mean(x^2) + EPS) * GAIN, and OUT = silu(GATE) * UP.
  void (*rmsnorm_row)(const float* x, const float* gain, int64_t k, float eps, float* out);
  void (*swiglu_row)(const float* gate, const float* up, int64_t k, float* out);
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace micromix::kernels::cpu
