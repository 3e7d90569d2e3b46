// How the rows and columns of some products of one input are shared out to threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include <omp.h>

#include "micromix/kernels/cpu/panel_product.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels::cpu {

// Whether threads multiply rows that others have quantized: where they cannot take whole passes
// over rows, as many each.
bool shares_rows(int64_t m);

class Partition {
 public:
  struct Share {
    const Product* product;
    Part part;
  };

  // PRODUCTS of M rows; they must stay.
  Partition(std::span<const Product> products, int64_t m);

  // Calls WORK(share) for shares that together are all rows and panels of all products.
  template <typename Work>
  void for_each_share(const Work& work) const {
    if (few_rows()) {
      // A thread streams panels that lie one after another, in ever shorter runs.
#pragma omp parallel for schedule(guided)
      for (int64_t panel = 0; panel < panels_; ++panel) work(panel_at(panel));
      return;
    }
    // A thread takes its own parts, then what others have left.
    const int threads = static_cast<int>(first_of_.size()) - 1;
    std::vector<std::atomic<int64_t>> next(threads);
    for (int t = 0; t < threads; ++t) next[t] = first_of_[t];
#pragma omp parallel
    for (int i = 0; i < threads; ++i) {
      const int t = (omp_get_thread_num() + i) % threads;
      for (int64_t index; (index = next[t]++) < first_of_[t + 1];) work(shares_[index]);
    }
  }

 private:
  // Up to so many, reading weights is what takes longest. Nothing is allocated then.
  bool few_rows() const {
    return m_ <= 6 * kTileRows;
  }
  // A panel of all rows, counted through all products.
  Share panel_at(int64_t index) const;
  void share_out();

  std::span<const Product> products_;
  int64_t m_;
  int64_t panels_ = 0;
  // Of many rows: thread T's parts are [first_of_[T], first_of_[T + 1]), of the rows that it has
  // quantized where there are as many passes over rows as threads.
  std::vector<Share> shares_;
  std::vector<int64_t> first_of_;
};

}  // namespace micromix::kernels::cpu
