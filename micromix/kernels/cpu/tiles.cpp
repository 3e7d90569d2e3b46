#include "micromix/kernels/cpu/tiles.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "micromix/mx/element.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace micromix::kernels::cpu {
namespace {

constexpr int kBlock = mx::kBlockSize;

// Element I of row ROW of a tile's block, unscaled.
float element(const std::byte* block, const TileSegment& segment, int wide_bytes, int row, int rows,
              int i) {
  if (segment.integer) {
    const auto integer =
        static_cast<int8_t>(block[12 * rows + (i / kStep * rows + row) * kStep + i % kStep]);
    return std::ldexp(static_cast<float>(integer), -integer_shift(*segment.format));
  }
  const std::byte* const data = block + 4 * rows;
  if (wide_bytes == 4) {
    float value;
    std::memcpy(&value, data + (i * rows + row) * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + (i / 2 * rows + row) * 4 + i % 2 * 2, 2);
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

template <int kRows>
void interleave_rows(const std::byte* rows, int64_t row_bytes, std::byte* out) {
  for (int64_t at = 0; at < row_bytes; at += 4) {
    for (int r = 0; r < kRows; ++r, out += 4) std::memcpy(out, rows + r * row_bytes + at, 4);
  }
}

// Copies to where other cores have what was there before. They would have to give each line up
// before it is written, which takes 100 ns where cores share no cache; past the caches nothing
// waits. TO is aligned to 16 bytes, as every tile is.
void copy_past_caches(const std::byte* from, int64_t size, std::byte* to) {
  assert(reinterpret_cast<uintptr_t>(to) % 16 == 0);
#if defined(__x86_64__)
  int64_t at = 0;
  for (; at + 16 <= size; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)));
  }
  std::memcpy(to + at, from + at, size - at);
  _mm_sfence();  // or the news of them might overtake them
#else
  std::memcpy(to, from, size);
#endif
}

}  // namespace

void interleave(const std::byte* rows, int count, int64_t row_bytes, std::byte* out) {
  constexpr void (*kByRows[])(const std::byte*, int64_t, std::byte*) = {
      interleave_rows<1>, interleave_rows<2>, interleave_rows<3>, interleave_rows<4>,
      interleave_rows<5>, interleave_rows<6>, interleave_rows<7>, interleave_rows<8>};
  kByRows[count - 1](rows, row_bytes, out);
}

void Tiles::reset(const Kernels& kernels, const InputPlan& plan, int64_t m, bool shared) {
  kernels_ = &kernels;
  m_ = m;
  shared_ = shared;
  segments_.clear();
  for (const InputPlan::Segment& segment : plan.segments) {
    segments_.push_back(
        {segment.format, is_integer(segment.weight, segment.format), segment.channels / kBlock});
  }
  if (plan.segments.empty()) segments_.push_back({std::nullopt, false, (plan.k + 31) / kBlock});
  row_bytes_ = 0;
  k_ = 0;
  for (const TileSegment& segment : segments_) {
    row_bytes_ += segment.blocks * tile_block_bytes(segment.integer, kernels.wide_bytes, 1);
    k_ += segment.blocks * kBlock;
  }
  bytes_.reserve(m * row_bytes_);
  flags_.resize(m);
}

void Tiles::set_rows(const InputPlan& plan, int64_t first, const float* const* rows) {
  // OWN is where a tile is made that is then copied past the caches.
  thread_local HugeBuffer scratch, own;
  const int count = rows_at(first);
  const bool gathers = !plan.segments.empty() && !plan.permutation.empty();
  const int32_t* const permutation = gathers ? plan.permutation.data() : nullptr;
  const int64_t bytes = count * row_bytes_;
  scratch.reserve(std::max(16 * k_, bytes));
  if (shared_) own.reserve(bytes);
  if (count > 1 && kernels_->quantize_tile != nullptr) {
    const bool past_caches = shared_ && count == kTileRows;
    std::byte* const out = shared_ && !past_caches ? own.bytes() : tile(first);
    if (kernels_->quantize_tile(rows, count, k_, permutation, plan.scale_rule, segments_,
                                past_caches, scratch.bytes(), out)) {
      std::fill_n(flags_.begin() + first, count, RowFlags{});
      if (out != tile(first)) copy_past_caches(out, bytes, tile(first));
      return;
    }
  }
  std::byte* const out = shared_ ? own.bytes() : tile(first);
  std::byte* const single = count == 1 ? out : scratch.bytes();
  for (int r = 0; r < count; ++r) {
    flags_[first + r] = kernels_->quantize_row(rows[r], permutation, plan.scale_rule, segments_,
                                               single + r * row_bytes_);
  }
  if (count > 1) interleave(single, count, row_bytes_, out);
  if (shared_) copy_past_caches(out, bytes, tile(first));
}

QuantizedRows Tiles::quantized_row(const InputPlan& plan, int64_t row) const {
  const int64_t first = row / kTileRows * kTileRows;
  const int rows = rows_at(first);
  const int in_tile = static_cast<int>(row - first);
  QuantizedRows result{1, plan, {}, {}, {}};
  const std::byte* block = at(first);
  for (const TileSegment& segment : segments_) {
    for (int64_t b = 0; b < segment.blocks; ++b) {
      int32_t exponent;
      std::memcpy(&exponent, block + 4 * in_tile, 4);
      const int shift = segment.integer ? integer_shift(*segment.format) : 0;
      const int scale = (exponent >> 23) + shift + mx::kScaleBias;
      const bool is_scaled = !segment.integer && is_common(scale);
      result.scales.push_back(static_cast<uint8_t>(scale));
      for (int i = 0; i < kBlock; ++i) {
        const float stored = element(block, segment, kernels_->wide_bytes, in_tile, rows, i);
        const float value = is_scaled ? std::ldexp(stored, mx::kScaleBias - scale) : stored;
        result.values.push_back(value);
        result.codes.push_back(segment.format ? mx::encode(*segment.format, value) : uint8_t{0});
      }
      block += tile_block_bytes(segment.integer, kernels_->wide_bytes, rows);
    }
  }
  return result;
}

}  // namespace micromix::kernels::cpu
