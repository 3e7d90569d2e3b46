#include "micromix/kernels/cpu/partition.h"

#include <algorithm>

namespace micromix::kernels::cpu {
namespace {

int64_t panels_of(const Product& product) {
  return (product.linear->n() + kPanel - 1) / kPanel;
}

// Over rows, each of which expands all weights.
int64_t passes_of(int64_t m) {
  return (m + kMostRows - 1) / kMostRows;
}

}  // namespace

bool shares_rows(int64_t m) {
  return passes_of(m) % omp_get_max_threads() != 0;
}

Partition::Partition(std::span<const Product> products, int64_t m) : products_(products), m_(m) {
  for (const Product& product : products) panels_ += panels_of(product);
  if (!few_rows()) share_out();
}

Partition::Share Partition::panel_at(int64_t index) const {
  const Product* product = products_.data();
  for (; index >= panels_of(*product); ++product) index -= panels_of(*product);
  return {product, {index, 1, 0, m_}};
}

void Partition::share_out() {
  // As many rows in every pass as whole tiles allow, which needs no pass more.
  const int64_t passes = passes_of(m_);
  const int64_t tiles = (m_ + kTileRows - 1) / kTileRows;
  const int64_t rows_together = (tiles + passes - 1) / passes * kTileRows;
  // Panels, each pass's counted, before thread T's.
  const int threads = omp_get_max_threads();
  const auto before = [&](int64_t t) { return passes * panels_ * t / threads; };

  int64_t done = 0;
  const auto next = [&] { return std::ssize(first_of_); };  // the thread whose parts follow
  first_of_.push_back(0);
  for (int64_t row = 0; row < m_; row += rows_together) {
    const int64_t rows = std::min(rows_together, m_ - row);
    for (const Product& product : products_) {
      const int64_t panels = panels_of(product);
      for (int64_t panel = 0; panel < panels;) {
        while (done >= before(next())) first_of_.push_back(std::ssize(shares_));
        // Ever smaller parts, so that threads end together.
        const int64_t smaller = std::max<int64_t>(1, (before(next()) - done) / 2);
        const int64_t together = std::min({panels - panel, kMostPanels, smaller});
        shares_.push_back({&product, {panel, together, row, rows}});
        panel += together;
        done += together;
      }
    }
  }
  first_of_.push_back(std::ssize(shares_));
}

}  // namespace micromix::kernels::cpu
