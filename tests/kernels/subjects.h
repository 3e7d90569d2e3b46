// The backends that a program's tests are about, and what each promises.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "micromix/kernels/linear.h"

namespace micromix::testing {

struct Subject {
  std::string name;
  const kernels::Backend* backend;  // null: not on this machine
  // FP32 additions in the longest chain behind an output, of a mixed linear or a dense one.
  int64_t (*additions)(int64_t k);
  // What a dense linear makes of an operand.
  float (*dense_operand)(float value);
  // The relative error of an output that is no mixed linear's, beside that of its sums.
  double output_rounding;
  // What attention may differ from the exact one, beside output_rounding (kernels/cpu/attention.h).
  double (*attention_error)(const kernels::AttentionShape& shape, int64_t positions,
                            double magnitude);
};

// Each program has its own.
std::vector<Subject> subjects();

// A test of every subject, which fails where that is not on this machine.
class BackendTest : public ::testing::TestWithParam<Subject> {
 protected:
  void SetUp() override { ASSERT_NE(GetParam().backend, nullptr) << "no " << GetParam().name; }
};

}  // namespace micromix::testing
