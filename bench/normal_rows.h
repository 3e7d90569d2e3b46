// A matrix of normal values, made fast enough for large ones: every row is a window of one pool of
// values, so that any element is known without the matrix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace micromix::bench {

// Standard normal values rounded to what T stores.
template <typename T>
class NormalRows {
 public:
  // ENCODE makes a T of a float, DECODE the float that the T stands for.
  template <typename Encode, typename Decode>
  NormalRows(uint64_t seed, const Encode& encode, const Decode& decode) : seed_(seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    pool_.resize(kPool);
    values_.resize(kPool);
    for (size_t i = 0; i < kPool; ++i) {
      pool_[i] = encode(normal(random));
      values_[i] = decode(pool_[i]);
    }
  }

  float value(int64_t row, int64_t column) const {
    return values_[(first(row) + static_cast<uint64_t>(column)) % kPool];
  }

  // Rows [FIRST_ROW, FIRST_ROW + ROWS) of K columns each.
  void copy(int64_t first_row, int64_t rows, int64_t k, T* out) const {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
      T* row = out + i * k;
      for (int64_t done = 0, at = static_cast<int64_t>(first(first_row + i)); done < k; at = 0) {
        const int64_t part = std::min(k - done, static_cast<int64_t>(kPool) - at);
        std::copy_n(pool_.data() + at, part, row + done);
        done += part;
      }
    }
  }

 private:
  static constexpr uint64_t kPool = uint64_t{1} << 20;

  // Where row ROW begins in the pool (the finalizer of SplitMix64).
  uint64_t first(int64_t row) const {
    uint64_t x = seed_ + static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (x ^ (x >> 31)) % kPool;
  }

  uint64_t seed_;
  std::vector<T> pool_;
  std::vector<float> values_;
};

}  // namespace micromix::bench
