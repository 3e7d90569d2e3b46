// AVX-512 with VNNI, VBMI and BF16 (Zen 4, Sapphire Rapids and later).
//
// Additions in an output's longest chain: integer blocks are exact, so K / 32; vdpbf16ps adds its
// two products one after the other, so K, or less in chains, which are added up, those of up to
// kPackedRows rows block by block, 31 + K / 32 and no more; and the bias.
// vdpbf16ps takes subnormal numbers as zero; neither elements nor scaled ones (kLowestScale) are,
// and products with BF16 activations that are below 2^-126 are outside what the bound promises.
#include "micromix/kernels/cpu/tile_includes.h"

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target(                                                            \
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx512bf16,fma," \
    "prefer-vector-width=512")

namespace micromix::kernels::cpu {
namespace {
constexpr int kWideBytes = 2;
}
}  // namespace micromix::kernels::cpu

#include "micromix/kernels/cpu/any_scale.inc"
#include "micromix/kernels/cpu/rows.inc"
// After rows.inc.
#include "micromix/kernels/cpu/avx512_expand.inc"
#include "micromix/kernels/cpu/avx512_quantize.inc"

namespace micromix::kernels::cpu {
namespace {

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

// Calls USE(row, half of the columns) for every sum of some rows. Unrolled, or the sums would lie
// in memory, to be indexed.
template <int kRows, typename Use>
inline void for_each_sum(const Use& use) {
  static_assert(kRows <= kTileRows);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) use(r, h);
  }
}

// The sums of a tile, from the first block to the last in registers.
template <int kRows>
struct Sums {
  __m512 sum[kRows][2];

  explicit Sums(const float* c) {
    for_each_sum<kRows>(
        [&](int r, int h) { sum[r][h] = _mm512_loadu_ps(c + r * kPanel + h * 16); });
  }
  void store(float* c) const {
    for_each_sum<kRows>(
        [&](int r, int h) { _mm512_storeu_ps(c + r * kPanel + h * 16, sum[r][h]); });
  }
};

// A block's integer sums become FP32, scaled, without the pipes that vpdpbusd keeps busy: M has the
// exponent of 1.5 * 2^23 plus those of the two scales, so adding an integer to its bits gives
// (1.5 * 2^23 + integer) * 2^(sx + sw), and subtracting M as FP32 leaves integer * 2^(sx + sw),
// exactly. M's exponent field is 44 to 238 within kLowestScale and kHighestScale.
class IntegerScaling {
 public:
  explicit IntegerScaling(mx::Format weight)
      : magic_(_mm512_set1_epi32(static_cast<int32_t>(
            0x4B400000u - (static_cast<uint32_t>(mx::kScaleBias + integer_shift(weight)) << 23)))) {
  }

  // Adds a block's of kCount rows, the first of which is kFirst: TILE begins with all rows'
  // exponents.
  template <int kFirst, int kCount, int kRows>
  void add(const __m512i (&acc)[kCount][2], const uint8_t* scales, const std::byte* tile,
           Sums<kRows>& sums) const {
    const __m512i columns[] = {_mm512_add_epi32(scale_exponents(scales), magic_),
                               _mm512_add_epi32(scale_exponents(scales + 16), magic_)};
    for_each_sum<kCount>([&](int r, int h) {
      const __m512i m = _mm512_add_epi32(columns[h], broadcast(tile + 4 * (kFirst + r)));
      const __m512 shifted = _mm512_castsi512_ps(_mm512_add_epi32(acc[r][h], m));
      __m512& sum = sums.sum[kFirst + r][h];
      sum = _mm512_add_ps(sum, _mm512_sub_ps(shifted, _mm512_castsi512_ps(m)));
    });
  }

 private:
  __m512i magic_;
};

// Asks for a tile's block that is multiplied two after block B, which lies at A: tiles come from
// the second-level cache, and each begins where hardware does not expect it.
template <int kRows, bool kInteger>
inline void prefetch_rows(const TileProduct& p, const std::byte* a, int64_t b) {
  constexpr int64_t kBytes = tile_block_bytes(kInteger, kWideBytes, kRows), kAhead = 2;
  const std::byte* const ahead =
      b + kAhead < p.blocks ? a + kAhead * kBytes : p.next + (b + kAhead - p.blocks) * kBytes;
  for (int64_t at = 0; at < kBytes; at += kVector) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T0);
  }
}

// A block's products of a few rows are spread over chains of additions, as many as registers hold:
// vpdpbusd and vdpbf16ps have latencies of several clocks, in each of which two pipes want a sum
// that is ready.
template <int kRows>
inline constexpr int kChains = kRows <= 2   ? 4
                               : kRows <= 4 ? 2
                                            : 1;

inline __m512i sum_of(__m512i a, __m512i b) {
  return _mm512_add_epi32(a, b);
}
inline __m512 sum_of(__m512 a, __m512 b) {
  return _mm512_add_ps(a, b);
}

// Rows of a tile that an expanded block meets at a time. Scaling the sums of a block takes as many
// instructions as its products: half a tile's find room among the other half's products, all of a
// tile's fill the schedulers.
template <int kRows>
inline constexpr int kTogether = kRows <= kTileRows / 2 ? kRows : (kRows + 1) / 2;

// Adds all chains to the first.
template <typename Vector, int kCount, int kRows>
inline void join(Vector (&acc)[kCount][kRows][2]) {
#pragma GCC unroll 4
  for (int chain = 1; chain < kCount; ++chain) {
    for_each_sum<kRows>(
        [&](int r, int h) { acc[0][r][h] = sum_of(acc[0][r][h], acc[chain][r][h]); });
  }
}

// VECTORS, but the compiler does not know: it would keep those it has seen in registers, of which
// there are too few. Volatile, or it takes one call for all.
inline const std::byte* again(const std::byte* vectors) {
  asm volatile("" : "+r"(vectors));
  return vectors;
}

// A block of a tile of kRows rows, of which kCount, from kFirst on, are multiplied: their products
// are added up in kChainCount chains, those joined and scaled.
template <int kRows, int kFirst, int kCount, int kChainCount = 1>
class IntegerBlock {
 public:
  IntegerBlock(mx::Format weight, const std::byte* tile)
      : tile_(tile), data_(tile + 12 * kRows + kFirst * kStep) {
    const std::byte* const starts = tile + starts_offset(weight, kRows) + 4 * kFirst;
    for_each_sum<kCount>([&](int r, int h) { acc_[0][r][h] = broadcast(starts + 4 * r); });
  }

  // A step's two vectors of columns.
  void add_step(int step, __m512i w0, __m512i w1) {
    const __m512i w[] = {w0, w1};
    for_each_sum<kCount>([&](int r, int h) {
      __m512i& sum = acc_[step % kChainCount][r][h];
      sum = _mm512_dpbusd_epi32(sum, w[h], broadcast(data_ + (step * kRows + r) * kStep));
    });
  }
  // All steps, of an expanded block.
  void add_steps(const std::byte* w) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      add_step(s, _mm512_load_si512(w + (2 * s) * kVector),
               _mm512_load_si512(w + (2 * s + 1) * kVector));
    }
  }

  // Adds the sums to SUMS.
  void finish(const IntegerScaling& scaling, const uint8_t* scales, Sums<kRows>& sums) {
    join(acc_);
    scaling.template add<kFirst>(acc_[0], scales, tile_, sums);
  }

 private:
  const std::byte* tile_;
  const std::byte* data_;
  __m512i acc_[kChainCount][kCount][2] = {};
};

template <int kRows>
void multiply_integer_rows(const TileProduct& p) {
  Sums<kRows> sums(p.c);
  const std::byte* a = p.a;
  const std::byte* w = p.w;
  const IntegerScaling scaling(p.weight_format);
  for (int64_t b = 0; b < p.blocks; ++b) {
    const uint8_t* const scales = p.scales + b * kPanel;
    prefetch_rows<kRows, true>(p, a, b);
    for_each_part<kRows, kTogether<kRows>>([&](auto first, auto count) {
      IntegerBlock<kRows, first(), count()> block(p.weight_format, a);
      block.add_steps(again(w));
      block.finish(scaling, scales, sums);
    });
    a += tile_block_bytes(true, kWideBytes, kRows);
    w += kBlockVectors * kVector;
  }
  sums.store(p.c);
}

// 5 KiB ahead, of the panel's next segment or the next panel where this one ends, for all of them
// lie one after another. Hardware learns of a stream from each instruction that loads it, so a
// kernel that comes back finds nothing asked for: 1 us on a Zen 5 wherever segments change. Not
// temporal, for weights of any size that matters are gone from every cache by the next token.
template <int kBits>
inline void prefetch_ahead(const uint8_t* codes) {
  constexpr int64_t kAhead = 5 << 10;
  prefetch_block<kBits, _MM_HINT_NTA>(codes + kAhead);
}

// As multiply_integer_rows(); of more than kPackedRows the first half leaves the block expanded,
// for the other one and for other tiles.
template <int kBits, int kRows>
void multiply_packed_integer_rows(const TileProduct& p) {
  constexpr bool kKeeps = kRows > kPackedRows;
  constexpr int kFirstCount = kKeeps ? kTogether<kRows> : kRows;
  const __m512i table = integer_table_of(p.weight_format);  // a call, which would spill sums
  Sums<kRows> sums(p.c);
  const std::byte* a = p.a;
  std::byte* out = p.expanded;
  const auto* codes = reinterpret_cast<const uint8_t*>(p.w);
  const IntegerScaling scaling(p.weight_format);
  for (int64_t b = 0; b < p.blocks; ++b) {
    const uint8_t* const scales = p.scales + b * kPanel;
    if constexpr (kKeeps) {
      prefetch_after<kBits>(codes, p.blocks);
    } else {
      prefetch_ahead<kBits>(codes);
    }
    IntegerBlock<kRows, 0, kFirstCount, kKeeps ? 1 : kChains<kRows>> block(p.weight_format, a);
    for_each_step<kBits>(codes, [&](int step, __m512i codes0, __m512i codes1) {
      const __m512i w0 = _mm512_permutexvar_epi8(codes0, table);
      const __m512i w1 = _mm512_permutexvar_epi8(codes1, table);
      if constexpr (kKeeps) {
        _mm512_store_si512(out + (2 * step) * kVector, w0);
        _mm512_store_si512(out + (2 * step + 1) * kVector, w1);
      }
      block.add_step(step, w0, w1);
    });
    block.finish(scaling, scales, sums);
    if constexpr (kKeeps) {
      IntegerBlock<kRows, kFirstCount, kRows - kFirstCount> rest(p.weight_format, a);
      rest.add_steps(again(out));
      rest.finish(scaling, scales, sums);
      out += kBlockVectors * kVector;
    }
    a += tile_block_bytes(true, kWideBytes, kRows);
    codes += kBlockVectors * 8 * kBits;
  }
  sums.store(p.c);
}

// Of kRows rows of a tile, kCount, from kFirst on, times BLOCKS blocks, the first of which is BLOCK
// and lies at A and W, onto SUMS.
//
// Odd pairs have sums of their own: two pipes with a latency of 6 clocks need 12 sums to be kept
// busy, of which half a tile has 8 in one chain of additions each.
template <int kFirst, int kCount, int kRows>
inline void add_wide(const TileProduct& p, int64_t block, int64_t blocks, const std::byte* a,
                     const std::byte* w, Sums<kRows>& sums) {
  const auto add_pair = [](const std::byte* rows, const std::byte* columns, auto& sum, int at) {
    const __m512i vectors[] = {_mm512_load_si512(columns), _mm512_load_si512(columns + kVector)};
    for_each_sum<kCount>([&](int r, int h) {
      sum[at + r][h] =
          _mm512_dpbf16_ps(sum[at + r][h], reinterpret_cast<__m512bh>(vectors[h]),
                           reinterpret_cast<__m512bh>(broadcast(rows + (kFirst + r) * 4)));
    });
  };
  __m512 odd[kCount][2] = {};
  for (int64_t b = block; b < block + blocks; ++b) {
    if constexpr (kFirst == 0) prefetch_rows<kRows, false>(p, a, b);
    a += 4 * kRows;  // exponents
#pragma GCC unroll 2
    for (int s = 0; s < 8; ++s) {
      add_pair(a, w, sums.sum, kFirst);
      add_pair(a + 4 * kRows, w + 2 * kVector, odd, 0);
      a += 8 * kRows;
      w += 4 * kVector;
    }
  }
  for_each_sum<kCount>([&](int r, int h) {
    sums.sum[kFirst + r][h] = _mm512_add_ps(sums.sum[kFirst + r][h], odd[r][h]);
  });
}

// Chains are joined so often that chunks are whole numbers of it: where one ends makes no
// difference.
template <int kRows>
void multiply_wide_rows(const TileProduct& p) {
  constexpr int64_t kJoined = 4;  // blocks
  Sums<kRows> sums(p.c);
  const std::byte* a = p.a;
  const std::byte* w = p.w;
  for (int64_t block = 0; block < p.blocks; block += kJoined) {
    const int64_t blocks = std::min(kJoined, p.blocks - block);
    for_each_part<kRows, kTogether<kRows>>(
        [&](auto first, auto count) { add_wide<first(), count()>(p, block, blocks, a, w, sums); });
    a += blocks * tile_block_bytes(false, kWideBytes, kRows);
    w += blocks * panel_block_bytes(false, kWideBytes);
  }
  sums.store(p.c);
}

// A block's sums are scaled, not its elements: for few rows that is less. So a row's last bits may
// differ from those that it has among more rows, or fewer, as chains do.
template <int kBits, int kRows>
void multiply_packed_wide_rows(const TileProduct& p) {
  const WideTable& table = wide_table_of(p.weight_format);  // a call, which would spill sums
  Sums<kRows> sums(p.c);
  const std::byte* a = p.a;
  const auto* codes = reinterpret_cast<const uint8_t*>(p.w);
  for (int64_t b = 0; b < p.blocks; ++b) {
    prefetch_ahead<kBits>(codes);
    a += 4 * kRows;  // exponents
    __m512 acc[kChains<kRows>][kRows][2] = {};
    for_each_pair<kBits>(table, codes, [&](int pair, int half, __m512i vector) {
      for (int r = 0; r < kRows; ++r) {
        const auto x = reinterpret_cast<__m512bh>(broadcast(a + (pair * kRows + r) * 4));
        __m512& sum = acc[pair % kChains<kRows>][r][half];
        sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(vector), x);
      }
    });
    join(acc);
    const __m512 units[] = {_mm512_castsi512_ps(scale_exponents(p.scales + b * kPanel)),
                            _mm512_castsi512_ps(scale_exponents(p.scales + b * kPanel + 16))};
    for_each_sum<kRows>([&](int r, int h) {
      sums.sum[r][h] = _mm512_fmadd_ps(acc[0][r][h], units[h], sums.sum[r][h]);
    });
    a += 64 * kRows;
    codes += kBlockVectors * 8 * kBits;
  }
  sums.store(p.c);
}

// A wide tile of one row holds its BF16 values one after another, as the weight's rows do: no
// transposition for weights that are used once. Row by row, so that memory is read from end to end:
// of eight rows at a time, short ones, hardware found no stream.
void multiply_dense_row(const TileProduct& p, int64_t stride, int64_t columns) {
  constexpr int kChainCount = kChains<1>;
  const std::byte* const a = p.a + 4;  // behind the first exponent
  for (int64_t j = 0; j < columns; ++j) {
    const std::byte* const row = p.w + j * stride;
    __m512 acc[kChainCount] = {};
    const auto add_block = [&](int64_t b, __m512& sum) {
      const void* const x = a + b * tile_block_bytes(false, kWideBytes, 1);
      sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_loadu_si512(row + b * kVector)),
                             reinterpret_cast<__m512bh>(_mm512_loadu_si512(x)));
    };
    int64_t b = 0;
    for (; b + kChainCount <= p.blocks; b += kChainCount) {
#pragma GCC unroll 4
      for (int i = 0; i < kChainCount; ++i) add_block(b + i, acc[i]);
    }
    for (; b < p.blocks; ++b) add_block(b, acc[0]);
    for (int i = 1; i < kChainCount; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
    p.c[j] += _mm512_reduce_add_ps(acc[0]);
  }
}

template <int kBits>
void multiply_packed_integer_bits(const TileProduct& p) {
  constexpr void (*kByRows[])(const TileProduct&) = {
      multiply_packed_integer_rows<kBits, 1>, multiply_packed_integer_rows<kBits, 2>,
      multiply_packed_integer_rows<kBits, 3>, multiply_packed_integer_rows<kBits, 4>,
      multiply_packed_integer_rows<kBits, 5>, multiply_packed_integer_rows<kBits, 6>,
      multiply_packed_integer_rows<kBits, 7>, multiply_packed_integer_rows<kBits, 8>};
  kByRows[p.rows - 1](p);
}

void multiply_packed_integer(const TileProduct& p) {
  assert((p.expanded == nullptr) == (p.rows <= kPackedRows));
  p.weight_format == mx::Format::kE2M1 ? multiply_packed_integer_bits<4>(p)
                                       : multiply_packed_integer_bits<6>(p);
}

template <int kBits>
void multiply_packed_wide_bits(const TileProduct& p) {
  constexpr void (*kByRows[])(const TileProduct&) = {
      multiply_packed_wide_rows<kBits, 1>, multiply_packed_wide_rows<kBits, 2>,
      multiply_packed_wide_rows<kBits, 3>, multiply_packed_wide_rows<kBits, 4>,
      multiply_packed_wide_rows<kBits, 5>, multiply_packed_wide_rows<kBits, 6>};
  kByRows[p.rows - 1](p);
}

void multiply_packed_wide(const TileProduct& p) {
  assert(p.rows <= kPackedRows);
  switch (mx::traits(p.weight_format).bits) {
    case 4:
      return multiply_packed_wide_bits<4>(p);
    case 6:
      return multiply_packed_wide_bits<6>(p);
    default:
      return multiply_packed_wide_bits<8>(p);
  }
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

constexpr auto kQuantizeTile = quantize_tile;
constexpr auto kMultiplyPackedInteger = multiply_packed_integer;
constexpr auto kMultiplyPackedWide = multiply_packed_wide;
constexpr auto kMultiplyDenseRow = multiply_dense_row;

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels kernels = MICROMIX_CPU_KERNELS(avx512);
  return kernels;
}

}  // namespace micromix::kernels::cpu

#pragma GCC pop_options

#endif
