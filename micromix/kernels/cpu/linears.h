// Weights as the CPU backend keeps them, and their products with panels' worth of rows.
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/kernels/cpu/panel_product.h"
#include "micromix/kernels/cpu/panels.h"
#include "micromix/kernels/linear.h"

namespace micromix::kernels::cpu {

class CpuLinear : public Linear {
 public:
  // Adds this weight's products to PRODUCT's panels, all segments, so that outputs are written.
  virtual void multiply(PanelProduct& product) const = 0;
  virtual const std::vector<float>& bias() const = 0;
};

class MixedLinear final : public CpuLinear {
 public:
  explicit MixedLinear(const MixedWeight& weight);

  int64_t n() const override { return packed_.n(); }
  int64_t k() const override { return packed_.k(); }
  void multiply(PanelProduct& product) const override;
  const std::vector<float>& bias() const override { return weight_.bias; }
  // As it was given; its codes are read for oracle columns and rows only.
  const MixedWeight& weight() const { return weight_; }
  // Those with scales that the kernels do not take.
  const std::vector<int64_t>& oracle_columns() const { return oracle_columns_; }

 private:
  PackedWeight packed_;
  MixedWeight weight_;
  std::vector<int64_t> oracle_columns_;
};

class DenseLinear final : public CpuLinear {
 public:
  explicit DenseLinear(const DenseWeight& weight) : weight_(weight) {}

  int64_t n() const override { return weight_.n; }
  int64_t k() const override { return weight_.k; }
  void multiply(PanelProduct& product) const override;
  const std::vector<float>& bias() const override { return weight_.bias; }

 private:
  DenseWeight weight_;
};

}  // namespace micromix::kernels::cpu
