// AVX-512 with VNNI, VBMI and BF16 (Zen 4, Sapphire Rapids and later).
//
// Additions in an output's longest chain: integer blocks are exact, so K / 32; vdpbf16ps adds its
// two products one after the other, so K; and the bias. vdpbf16ps takes subnormal numbers as zero;
// scaled elements have none (kLowestScale), and BF16 activations below 2^-126 are outside what the
// bound promises.
#include "micromix/kernels/cpu/tile_includes.h"

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target( \
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx512bf16,fma,prefer-vector-width=512")

namespace micromix::kernels::cpu {
namespace {
constexpr int kWideBytes = 2;
}
}  // namespace micromix::kernels::cpu

#include "micromix/kernels/cpu/any_scale.inc"
#include "micromix/kernels/cpu/rows.inc"
// After rows.inc.
#include "micromix/kernels/cpu/avx512_quantize.inc"

namespace micromix::kernels::cpu {
namespace {

constexpr int64_t kVector = 64;
constexpr int64_t kBlockVectors = 16;  // of an integer block, or of codes

// The integer of every code plus the format's offset; vpermb reads the low six bits of an index.
__m512i integer_table(mx::Format format) {
  alignas(kVector) uint8_t table[64];
  const int codes = 1 << mx::traits(format).bits;
  for (int i = 0; i < 64; ++i) {
    const float value = mx::decode(format, static_cast<uint8_t>(i % codes));
    table[i] = static_cast<uint8_t>(static_cast<int>(value * (1 << integer_shift(format))) +
                                    integer_offset(format));
  }
  return _mm512_load_si512(table);
}

// One byte, high or low, of the BF16 of every code below 128. E4M3's codes from 128 on are these
// with the sign set.
struct WideTable {
  __m512i low[2];  // codes 0 to 63, 64 to 127
  __m512i high[2];
};

WideTable wide_table(mx::Format format) {
  alignas(kVector) uint8_t low[128], high[128];
  const int codes = std::min(128, 1 << mx::traits(format).bits);
  for (int i = 0; i < 128; ++i) {
    const float value = mx::decode(format, static_cast<uint8_t>(i % codes));
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    low[i] = static_cast<uint8_t>(bits >> 16);
    high[i] = static_cast<uint8_t>(bits >> 24);
  }
  return {{_mm512_load_si512(low), _mm512_load_si512(low + 64)},
          {_mm512_load_si512(high), _mm512_load_si512(high + 64)}};
}

// Calls USE(vector index, codes) for the 16 vectors of a packed block; above a code's bits there
// may be anything.
template <int kBits, typename Use>
inline void for_each_vector(const uint8_t* packed, const Use& use) {
  const auto load = [&](int64_t i) { return _mm512_loadu_si512(packed + i * kVector); };
  if constexpr (kBits == 4) {
    for (int i = 0; i < 8; ++i) {
      const __m512i two = load(i);
      use(2 * i, two);
      use(2 * i + 1, _mm512_srli_epi16(two, 4));
    }
  } else if constexpr (kBits == 6) {
    const __m512i low = _mm512_set1_epi8(15);
    // Bits of LOW from a, the others from b.
    const auto merge = [&](__m512i a, __m512i b) {
      return _mm512_ternarylogic_epi32(low, a, b, 0xCA);
    };
    for (int q = 0; q < 4; ++q) {
      const __m512i z01 = load(3 * q), z23 = load(3 * q + 1), high = load(3 * q + 2);
      use(4 * q, merge(z01, _mm512_slli_epi16(high, 4)));
      use(4 * q + 1, merge(_mm512_srli_epi16(z01, 4), _mm512_slli_epi16(high, 2)));
      use(4 * q + 2, merge(z23, high));
      use(4 * q + 3, merge(_mm512_srli_epi16(z23, 4), _mm512_srli_epi16(high, 2)));
    }
  } else {
    for (int i = 0; i < kBlockVectors; ++i) use(i, load(i));
  }
}

template <int kBits>
void expand_integer_bits(__m512i table, const uint8_t* codes, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    for_each_vector<kBits>(codes, [&](int i, __m512i vector) {
      // Four-bit codes come with the neighbour's bits above; the table repeats every 16 codes.
      _mm512_store_si512(out + i * kVector, _mm512_permutexvar_epi8(vector, table));
    });
    codes += kBlockVectors * 8 * kBits;
    out += kBlockVectors * kVector;
  }
}

void expand_integer(mx::Format format, const uint8_t* codes, int64_t blocks, std::byte* out) {
  static const __m512i tables[] = {integer_table(mx::Format::kE2M1),
                                   integer_table(mx::Format::kE2M3)};
  if (format == mx::Format::kE2M1) return expand_integer_bits<4>(tables[0], codes, blocks, out);
  expand_integer_bits<6>(tables[1], codes, blocks, out);
}

// BF16 pairs times 2^(EXPONENTS >> 7), in the exponents' fields; zeros stay.
inline __m512i scale_pairs(__m512i pairs, __m512i exponents) {
  const __mmask32 nonzero = _mm512_test_epi16_mask(pairs, _mm512_set1_epi16(0x7FFF));
  return _mm512_mask_add_epi16(pairs, nonzero, pairs, exponents);
}

template <int kBits>
void expand_wide_bits(const WideTable& table, const uint8_t* codes, const uint8_t* scales,
                      int64_t blocks, std::byte* out) {
  // Within each 128 bits, four columns of channels 0 to 3: the first two channels of every column
  // to the low half, so that interleaving bytes makes pairs of BF16.
  const __m512i pairs =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int64_t b = 0; b < blocks; ++b) {
    __m512i exponents[2];  // of 16 columns, for both of a pair
    for (int h = 0; h < 2; ++h) {
      const auto* const of_half = reinterpret_cast<const __m128i*>(scales + b * kPanel + h * 16);
      const __m512i exponent = _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(of_half)),
                                                _mm512_set1_epi32(mx::kScaleBias));
      exponents[h] = _mm512_slli_epi16(
          _mm512_mask_blend_epi16(0xAAAAAAAA, exponent, _mm512_slli_epi32(exponent, 16)), 7);
    }
    for_each_vector<kBits>(codes, [&](int i, __m512i vector) {
      const __m512i code = _mm512_shuffle_epi8(vector, pairs);
      __m512i low, high;
      if constexpr (kBits == 8) {
        low = _mm512_permutex2var_epi8(table.low[0], code, table.low[1]);
        high = _mm512_permutex2var_epi8(table.high[0], code, table.high[1]);
        high = _mm512_ternarylogic_epi32(high, code, sign, 0xF8);  // high | (code & sign)
      } else {
        low = _mm512_permutexvar_epi8(code, table.low[0]);
        high = _mm512_permutexvar_epi8(code, table.high[0]);
      }
      // Vector i holds step i / 2 of 16 columns: two pairs of channels, 32 columns apart.
      std::byte* const step = out + (i / 2 * 4 + i % 2) * kVector;
      _mm512_store_si512(step, scale_pairs(_mm512_unpacklo_epi8(low, high), exponents[i % 2]));
      _mm512_store_si512(step + 2 * kVector,
                         scale_pairs(_mm512_unpackhi_epi8(low, high), exponents[i % 2]));
    });
    codes += kBlockVectors * 8 * kBits;
    out += 2 * kBlockVectors * kVector;
  }
}

void expand_wide(mx::Format format, const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                 std::byte* out) {
  static const WideTable tables[] = {wide_table(mx::Format::kE2M1), wide_table(mx::Format::kE2M3),
                                     wide_table(mx::Format::kE3M2), wide_table(mx::Format::kE4M3)};
  const WideTable& table = tables[static_cast<size_t>(format)];
  switch (mx::traits(format).bits) {
    case 4:
      return expand_wide_bits<4>(table, codes, scales, blocks, out);
    case 6:
      return expand_wide_bits<6>(table, codes, scales, blocks, out);
    default:
      return expand_wide_bits<8>(table, codes, scales, blocks, out);
  }
}

// Transposes 16 rows of 16 32-bit values (pairs of BF16), STRIDE bytes apart, to OUT [16][16] with
// rows 128 bytes apart; rows from COUNT on are zero.
void transpose_pairs(const std::byte* rows, int64_t stride, int64_t count, std::byte* out) {
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) {
    r[i] = i < count ? _mm512_loadu_si512(rows + i * stride) : _mm512_setzero_si512();
  }
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4 q + j] holds, in its 128-bit lane l, column 4 l + j of rows 4 q to 4 q + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xDD);
    const __m512i d = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xDD);
    const auto store = [&](int column, __m512i x) {
      _mm512_store_si512(out + column * 2 * kVector, x);
    };
    store(j, _mm512_shuffle_i32x4(a, b, 0x88));
    store(4 + j, _mm512_shuffle_i32x4(c, d, 0x88));
    store(8 + j, _mm512_shuffle_i32x4(a, b, 0xDD));
    store(12 + j, _mm512_shuffle_i32x4(c, d, 0xDD));
  }
}

void expand_dense(const std::byte* rows, int64_t stride, int64_t columns, int64_t blocks,
                  std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t half = 0; half < 2; ++half) {
      transpose_pairs(rows + half * 16 * stride, stride, columns - half * 16, out + half * kVector);
    }
    rows += 2 * mx::kBlockSize;
    out += 2 * kBlockVectors * kVector;
  }
}

// The powers of two of a block's columns, as shifted exponents that a row's are added to.
inline __m512i scale_exponents(const uint8_t* scales) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
  return _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23);
}

inline __m512i broadcast(const std::byte* value) {
  int32_t bits;
  std::memcpy(&bits, value, 4);
  return _mm512_set1_epi32(bits);
}

// The sums of a tile, in registers from the first block to the last.
template <int kRows>
struct Sums {
  __m512 sum[kRows][2];

  explicit Sums(const float* c) {
    for (int r = 0; r < kRows; ++r) {
      for (int h = 0; h < 2; ++h) sum[r][h] = _mm512_loadu_ps(c + r * kPanel + h * 16);
    }
  }
  void store(float* c) const {
    for (int r = 0; r < kRows; ++r) {
      for (int h = 0; h < 2; ++h) _mm512_storeu_ps(c + r * kPanel + h * 16, sum[r][h]);
    }
  }
};

// A block's integer sums become FP32, scaled, without the pipes that vpdpbusd keeps busy: M has the
// exponent of 1.5 * 2^23 plus those of the two scales, so adding an integer to its bits gives
// (1.5 * 2^23 + integer) * 2^(sx + sw), and subtracting M as FP32 leaves integer * 2^(sx + sw),
// exactly. M's exponent is 30 to 240 within kLowestScale and kHighestScale.
template <int kRows>
void multiply_integer_rows(const TileProduct& p) {
  constexpr int64_t kTileBytes = tile_block_bytes(true, kWideBytes, kRows);
  Sums<kRows> sums(p.c);
  const std::byte* a = p.a;
  const std::byte* w = p.w;
  const uint32_t unscaled =
      0x4B400000u - (static_cast<uint32_t>(mx::kScaleBias + integer_shift(p.weight_format)) << 23);
  const __m512i magic = _mm512_set1_epi32(static_cast<int32_t>(unscaled));
  const int64_t starts = starts_offset(p.weight_format, kRows);
  for (int64_t b = 0; b < p.blocks; ++b) {
    __m512i acc[kRows][2];
    for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = broadcast(a + starts + 4 * r);
    const std::byte* const data = a + 12 * kRows;
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      const __m512i w0 = _mm512_load_si512(w + (2 * s) * kVector);
      const __m512i w1 = _mm512_load_si512(w + (2 * s + 1) * kVector);
      for (int r = 0; r < kRows; ++r) {
        const __m512i x = broadcast(data + (s * kRows + r) * kStep);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], w0, x);
        acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], w1, x);
      }
    }
    for (int h = 0; h < 2; ++h) {
      const __m512i column =
          _mm512_add_epi32(scale_exponents(p.scales + b * kPanel + h * 16), magic);
      for (int r = 0; r < kRows; ++r) {
        const __m512i m = _mm512_add_epi32(column, broadcast(a + 4 * r));
        const __m512 shifted = _mm512_castsi512_ps(_mm512_add_epi32(acc[r][h], m));
        sums.sum[r][h] =
            _mm512_add_ps(sums.sum[r][h], _mm512_sub_ps(shifted, _mm512_castsi512_ps(m)));
      }
    }
    a += kTileBytes;
    w += kBlockVectors * kVector;
  }
  sums.store(p.c);
}

template <int kRows>
void multiply_wide_rows(const TileProduct& p) {
  Sums<kRows> sums(p.c);
  const std::byte* a = p.a;
  const std::byte* w = p.w;
  for (int64_t b = 0; b < p.blocks; ++b) {
    a += 4 * kRows;  // exponents
#pragma GCC unroll 4
    for (int s = 0; s < 16; ++s) {
      const auto w0 = reinterpret_cast<__m512bh>(_mm512_load_si512(w));
      const auto w1 = reinterpret_cast<__m512bh>(_mm512_load_si512(w + kVector));
      for (int r = 0; r < kRows; ++r) {
        const auto x = reinterpret_cast<__m512bh>(broadcast(a + r * 4));
        sums.sum[r][0] = _mm512_dpbf16_ps(sums.sum[r][0], w0, x);
        sums.sum[r][1] = _mm512_dpbf16_ps(sums.sum[r][1], w1, x);
      }
      a += 4 * kRows;
      w += 2 * kVector;
    }
  }
  sums.store(p.c);
}

void multiply_integer(const TileProduct& p) {
  constexpr void (*kByRows[])(const TileProduct&) = {
      multiply_integer_rows<1>, multiply_integer_rows<2>, multiply_integer_rows<3>,
      multiply_integer_rows<4>, multiply_integer_rows<5>, multiply_integer_rows<6>};
  kByRows[p.rows - 1](p);
}

void multiply_wide(const TileProduct& p) {
  constexpr void (*kByRows[])(const TileProduct&) = {multiply_wide_rows<1>, multiply_wide_rows<2>,
                                                     multiply_wide_rows<3>, multiply_wide_rows<4>,
                                                     multiply_wide_rows<5>, multiply_wide_rows<6>};
  kByRows[p.rows - 1](p);
}

constexpr auto kQuantizeTile = quantize_tile;

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels kernels = MICROMIX_CPU_KERNELS(avx512);
  return kernels;
}

}  // namespace micromix::kernels::cpu

#pragma GCC pop_options

#endif
