// AVX2 with FMA.
//
// Integers: vpmaddubsw adds two products of a column in 16 bits, and a block's 16 products a lane
// are added there: 16 x 24 x 60 = 23040 at most for weights of E2M1. E2M3 by E2M3 gives 14400 a
// pair, so weights of E2M3 widen to 32 bits every second step. Wide: FP32 and fused multiply-add.
// Additions in an output's longest chain: K / 32 for integers, K for wide products, and the bias.
#include "micromix/kernels/cpu/tile_includes.h"

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace micromix::kernels::cpu {
namespace {
constexpr int kWideBytes = 4;
}
}  // namespace micromix::kernels::cpu

#include "micromix/kernels/cpu/any_scale.inc"
#include "micromix/kernels/cpu/rows.inc"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kVector = 32;
constexpr int64_t kHalf = 16;  // columns that a pass over a tile takes: two vectors

__m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

void store(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}

// Calls USE(vector index, codes) for the 32 vectors of 32 codes of a packed block, codes clean.
template <int kBits, typename Use>
inline void for_each_vector(const uint8_t* packed, const Use& use) {
  const __m256i low = _mm256_set1_epi8(15);
  const auto high_nibbles = [&](__m256i x) {
    return _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
  };
  if constexpr (kBits == 4) {
    for (int i = 0; i < 16; ++i) {
      // The packed vectors are 64 wide: their halves lie two of ours apart.
      const __m256i two = load(packed + i * kVector);
      const int first = i / 2 * 4 + i % 2;
      use(first, _mm256_and_si256(two, low));
      use(first + 2, high_nibbles(two));
    }
  } else if constexpr (kBits == 6) {
    const __m256i upper = _mm256_set1_epi8(0x30);
    const auto join = [&](__m256i nibbles, __m256i high) {
      return _mm256_or_si256(nibbles, _mm256_and_si256(high, upper));
    };
    for (int q = 0; q < 4; ++q) {
      for (int h = 0; h < 2; ++h) {
        const uint8_t* const three = packed + q * 192 + h * kVector;
        const __m256i z01 = load(three), z23 = load(three + 64), high = load(three + 128);
        use(8 * q + h, join(_mm256_and_si256(z01, low), _mm256_slli_epi16(high, 4)));
        use(8 * q + 2 + h, join(high_nibbles(z01), _mm256_slli_epi16(high, 2)));
        use(8 * q + 4 + h, join(_mm256_and_si256(z23, low), high));
        use(8 * q + 6 + h, join(high_nibbles(z23), _mm256_srli_epi16(high, 2)));
      }
    }
  } else {
    for (int i = 0; i < 32; ++i) use(i, load(packed + i * kVector));
  }
}

void expand_e2m1(const uint8_t* codes, int64_t blocks, std::byte* out) {
  const __m256i table = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  for (int64_t b = 0; b < blocks; ++b, codes += 512, out += 1024) {
    for_each_vector<4>(codes, [&](int i, __m256i vector) {
      store(out + i * kVector, _mm256_shuffle_epi8(table, vector));
    });
  }
}

void expand_e2m3(const uint8_t* codes, int64_t blocks, std::byte* out) {
  // Eight times the magnitudes from 16 on; those below are their codes.
  const __m256i large = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 56, 60));
  const __m256i sixteen = _mm256_set1_epi8(16), sign = _mm256_set1_epi8(32);
  const __m256i low = _mm256_set1_epi8(15), offset = _mm256_set1_epi8(60);
  for (int64_t b = 0; b < blocks; ++b, codes += 768, out += 1024) {
    for_each_vector<6>(codes, [&](int i, __m256i vector) {
      const __m256i index = _mm256_and_si256(vector, low);
      const __m256i is_large = _mm256_cmpeq_epi8(_mm256_and_si256(vector, sixteen), sixteen);
      const __m256i is_negative = _mm256_cmpeq_epi8(_mm256_and_si256(vector, sign), sign);
      const __m256i magnitude =
          _mm256_blendv_epi8(index, _mm256_shuffle_epi8(large, index), is_large);
      // x xor -1 minus -1 is -x.
      const __m256i value = _mm256_sub_epi8(_mm256_xor_si256(magnitude, is_negative), is_negative);
      store(out + i * kVector, _mm256_add_epi8(value, offset));
    });
  }
}

void expand_integer(mx::Format format, const uint8_t* codes, int64_t blocks, std::byte* out) {
  format == mx::Format::kE2M1 ? expand_e2m1(codes, blocks, out) : expand_e2m3(codes, blocks, out);
}

// The FP32 of codes in 32-bit lanes. Exponent and mantissa, moved into FP32's fields, are the value
// divided by 2^(127 - bias), subnormals included.
template <mx::Format kFormat>
inline __m256 decode(__m256i codes) {
  constexpr mx::FormatTraits f = mx::traits(kFormat);
  constexpr int kSignBit = f.bits - 1;
  const __m256i magnitude = _mm256_slli_epi32(
      _mm256_and_si256(codes, _mm256_set1_epi32((1 << kSignBit) - 1)), 23 - f.mantissa_bits);
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(codes, kSignBit), 31);
  const __m256 factor = _mm256_castsi256_ps(_mm256_set1_epi32((254 - f.bias) << 23));
  return _mm256_or_ps(_mm256_mul_ps(_mm256_castsi256_ps(magnitude), factor),
                      _mm256_castsi256_ps(sign));
}

// Of 8 columns, as shifted exponents.
inline __m256i scale_exponents(const uint8_t* scales) {
  return _mm256_slli_epi32(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales))), 23);
}

template <mx::Format kFormat>
void expand_wide_format(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        std::byte* out) {
  constexpr int kBits = mx::traits(kFormat).bits;
  const __m256i byte = _mm256_set1_epi32(0xFF);
  for (int64_t b = 0; b < blocks; ++b) {
    __m256 units[4];
    for (int i = 0; i < 4; ++i) {
      units[i] = _mm256_castsi256_ps(scale_exponents(scales + b * kPanel + 8 * i));
    }
    for_each_vector<kBits>(codes, [&](int i, __m256i vector) {
      // Step i / 4, columns i % 4 * 8 to + 7; a lane of 32 bits has a column's four channels.
      std::byte* const to = out + (i / 4 * kStep * kPanel + i % 4 * 8) * 4;
      for (int channel = 0; channel < kStep; ++channel) {
        const __m256i code = _mm256_and_si256(_mm256_srli_epi32(vector, 8 * channel), byte);
        _mm256_storeu_ps(reinterpret_cast<float*>(to + channel * kPanel * 4),
                         _mm256_mul_ps(decode<kFormat>(code), units[i % 4]));
      }
    });
    codes += mx::packed_bytes(kFormat, kPanel * kBlock);
    out += panel_block_bytes(false, kWideBytes);
  }
}

void expand_wide(mx::Format format, const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                 std::byte* out) {
  switch (format) {
    case mx::Format::kE2M1:
      return expand_wide_format<mx::Format::kE2M1>(codes, scales, blocks, out);
    case mx::Format::kE2M3:
      return expand_wide_format<mx::Format::kE2M3>(codes, scales, blocks, out);
    case mx::Format::kE3M2:
      return expand_wide_format<mx::Format::kE3M2>(codes, scales, blocks, out);
    default:
      return expand_wide_format<mx::Format::kE4M3>(codes, scales, blocks, out);
  }
}

void expand_dense(const std::byte* rows, int64_t stride, int64_t columns, int64_t blocks,
                  std::byte* out) {
  portable_kernels().expand_dense(rows, stride, columns, blocks, out);  // FP32 too
}

inline __m256i broadcast(const std::byte* value) {
  int32_t bits;
  std::memcpy(&bits, value, 4);
  return _mm256_set1_epi32(bits);
}

// Adds the sums of a row's block, 8 columns, times 2^(sx + sw) to C.
inline void add_scaled(__m256 sums, __m256i row, __m256i column_exponents, float* c) {
  const __m256 scale = _mm256_castsi256_ps(_mm256_add_epi32(row, column_exponents));
  _mm256_storeu_ps(c, _mm256_fmadd_ps(sums, scale, _mm256_loadu_ps(c)));
}

// The integer sums of a block over two vectors of columns, for kRows rows of a tile of ROWS.
// kSteps: how many steps fit 16 bits; all of a block do without sums in 32 bits beside them, which
// leaves registers for more rows.
template <int kRows, int kSteps>
inline void sum_block(const std::byte* data, const std::byte* w, int rows,
                      __m256i (&sums)[kRows][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int begin = 0; begin < 8; begin += kSteps) {
    __m256i acc[kRows][2];
#pragma GCC unroll 8
    for (int s = begin; s < begin + kSteps; ++s) {
      const __m256i w0 = load(w + s * 4 * kVector);
      const __m256i w1 = load(w + s * 4 * kVector + kVector);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m256i x = broadcast(data + (s * rows + r) * kStep);
        const __m256i p0 = _mm256_maddubs_epi16(w0, x), p1 = _mm256_maddubs_epi16(w1, x);
        acc[r][0] = s == begin ? p0 : _mm256_add_epi16(acc[r][0], p0);
        acc[r][1] = s == begin ? p1 : _mm256_add_epi16(acc[r][1], p1);
        // Keeps the additions in this order: as a tree they spill every product.
        asm("" : "+x"(acc[r][0]), "+x"(acc[r][1]));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) {
        const __m256i wide = _mm256_madd_epi16(acc[r][v], ones);
        sums[r][v] = begin == 0 ? wide : _mm256_add_epi32(sums[r][v], wide);
      }
    }
  }
}

template <int kRows, int kFirst, int kCount, int kSteps>
void multiply_integer_part(const TileProduct& p) {
  const __m256i shift = _mm256_set1_epi32(integer_shift(p.weight_format) << 23);
  const int64_t starts = starts_offset(p.weight_format, kRows);
  for (int64_t half = 0; half < 2; ++half) {
    const std::byte* a = p.a + kFirst * 4;
    const std::byte* w = p.w + half * 2 * kVector;
    float* const c = p.c + kFirst * kPanel + half * kHalf;
    for (int64_t b = 0; b < p.blocks; ++b) {
      __m256i sums[kCount][2];
      sum_block<kCount, kSteps>(a + 12 * kRows, w, kRows, sums);
      __m256i exponents[2];
      for (int v = 0; v < 2; ++v) {
        const uint8_t* const scales = p.scales + b * kPanel + half * kHalf + v * 8;
        exponents[v] = _mm256_sub_epi32(scale_exponents(scales), shift);
      }
      for (int r = 0; r < kCount; ++r) {
        const __m256i start = broadcast(a + starts + 4 * r), row = broadcast(a + 4 * r);
        for (int v = 0; v < 2; ++v) {
          const __m256 sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sums[r][v], start));
          add_scaled(sum, row, exponents[v], c + r * kPanel + v * 8);
        }
      }
      a += tile_block_bytes(true, kWideBytes, kRows);
      w += 1024;
    }
  }
}

template <int kRows, int kFirst, int kCount>
void multiply_wide_part(const TileProduct& p) {
  for (int64_t half = 0; half < 2; ++half) {
    const std::byte* a = p.a + 4 * kFirst;
    const std::byte* w = p.w + half * 2 * kVector;
    float* const c = p.c + kFirst * kPanel + half * kHalf;
    __m256 sums[kCount][2];
    for (int r = 0; r < kCount; ++r) {
      for (int v = 0; v < 2; ++v) sums[r][v] = _mm256_loadu_ps(c + r * kPanel + v * 8);
    }
    for (int64_t b = 0; b < p.blocks; ++b) {
      a += 4 * kRows;  // exponents
      for (int s = 0; s < kBlock; ++s) {
        const __m256 w0 = _mm256_castsi256_ps(load(w));
        const __m256 w1 = _mm256_castsi256_ps(load(w + kVector));
        for (int r = 0; r < kCount; ++r) {
          const __m256 x = _mm256_castsi256_ps(broadcast(a + r * 4));
          sums[r][0] = _mm256_fmadd_ps(w0, x, sums[r][0]);
          sums[r][1] = _mm256_fmadd_ps(w1, x, sums[r][1]);
        }
        a += 4 * kRows;
        w += 4 * kVector;
      }
    }
    for (int r = 0; r < kCount; ++r) {
      for (int v = 0; v < 2; ++v) _mm256_storeu_ps(c + r * kPanel + v * 8, sums[r][v]);
    }
  }
}

template <int kRows>
void multiply_integer_rows(const TileProduct& p) {
  if (p.weight_format == mx::Format::kE2M1) {
    for_each_part<kRows, 4>(
        [&](auto first, auto count) { multiply_integer_part<kRows, first(), count(), 8>(p); });
  } else {
    for_each_part<kRows, 3>(
        [&](auto first, auto count) { multiply_integer_part<kRows, first(), count(), 2>(p); });
  }
}

template <int kRows>
void multiply_wide_rows(const TileProduct& p) {
  for_each_part<kRows, 4>(
      [&](auto first, auto count) { multiply_wide_part<kRows, first(), count()>(p); });
}

void multiply_integer(const TileProduct& p) {
  constexpr void (*kByRows[])(const TileProduct&) = {
      multiply_integer_rows<1>, multiply_integer_rows<2>, multiply_integer_rows<3>,
      multiply_integer_rows<4>, multiply_integer_rows<5>, multiply_integer_rows<6>,
      multiply_integer_rows<7>, multiply_integer_rows<8>};
  kByRows[p.rows - 1](p);
}

void multiply_wide(const TileProduct& p) {
  constexpr void (*kByRows[])(const TileProduct&) = {
      multiply_wide_rows<1>, multiply_wide_rows<2>, multiply_wide_rows<3>, multiply_wide_rows<4>,
      multiply_wide_rows<5>, multiply_wide_rows<6>, multiply_wide_rows<7>, multiply_wide_rows<8>};
  kByRows[p.rows - 1](p);
}

constexpr decltype(Kernels::quantize_tile) kQuantizeTile = nullptr;
constexpr decltype(Kernels::multiply_packed_integer) kMultiplyPackedInteger = nullptr;
constexpr decltype(Kernels::multiply_packed_wide) kMultiplyPackedWide = nullptr;
constexpr decltype(Kernels::multiply_dense_row) kMultiplyDenseRow = nullptr;

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels kernels = MICROMIX_CPU_KERNELS(avx2);
  return kernels;
}

}  // namespace micromix::kernels::cpu

#pragma GCC pop_options

#endif
