// fragments.h against the layouts that CUTLASS 4.2 gives the same instructions
// (cute/atom/mma_traits_sm120.hpp): functions from a thread and a value, in register order, to
// m + 16 k of A, n + 8 k of B, m + 16 n of C, and of scales, whose values are the thread's k,
// alike.
#include "micromix/kernels/cuda/block_scaled/fragments.h"

#include <cute/atom/mma_traits_sm120.hpp>
#include <gtest/gtest.h>

namespace micromix::kernels::cuda::block_scaled {
namespace {

constexpr int kLanes = 32;

struct E2m1 {
  static constexpr int codes = 8;
  using Traits = cute::MMA_Traits<cute::SM120::BLOCKSCALED::SM120_16x8x64_TN_VS<
      cutlass::float_e2m1_t, cutlass::float_e2m1_t, float, cutlass::float_ue8m0_t, 32>>;
};
struct E4m3 {
  static constexpr int codes = 4;
  using Traits = cute::MMA_Traits<cute::SM120::BLOCKSCALED::SM120_16x8x32_TN_VS<
      cutlass::float_e4m3_t, cutlass::float_e4m3_t, float, cutlass::float_ue8m0_t, 32>>;
};

template <typename T>
class Fragments : public ::testing::Test {};
using Instructions = ::testing::Types<E2m1, E4m3>;
TYPED_TEST_SUITE(Fragments, Instructions);

// Of LAYOUT, a function of (thread, value).
template <typename Layout>
int at(const Layout& layout, int lane, int value) {
  return static_cast<int>(layout(lane, value));
}

TYPED_TEST(Fragments, ShapesAreCutes) {
  using Shape = typename TypeParam::Traits::Shape_MNK;
  EXPECT_EQ(int{cute::size<0>(Shape{})}, kMmaRows);
  EXPECT_EQ(int{cute::size<1>(Shape{})}, kMmaColumns);
  EXPECT_EQ(int{cute::size<2>(Shape{})}, mma_k(TypeParam::codes));
  EXPECT_EQ(int{cute::size(typename TypeParam::Traits::ThrID{})}, kLanes);
}

TYPED_TEST(Fragments, AIsCutes) {
  constexpr int codes = TypeParam::codes;
  const typename TypeParam::Traits::ALayout layout;
  ASSERT_EQ(int{cute::size(layout)}, kLanes * 4 * codes);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      for (int index = 0; index < codes; ++index) {
        EXPECT_EQ(at(layout, lane, reg * codes + index),
                  a_row(lane, reg) + kMmaRows * a_k(codes, lane, reg, index))
            << "lane " << lane << ", register " << reg << ", code " << index;
      }
    }
  }
}

TYPED_TEST(Fragments, BIsCutes) {
  constexpr int codes = TypeParam::codes;
  const typename TypeParam::Traits::BLayout layout;
  ASSERT_EQ(int{cute::size(layout)}, kLanes * 2 * codes);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 2; ++reg) {
      for (int index = 0; index < codes; ++index) {
        EXPECT_EQ(at(layout, lane, reg * codes + index),
                  b_column(lane) + kMmaColumns * b_k(codes, lane, reg, index))
            << "lane " << lane << ", register " << reg << ", code " << index;
      }
    }
  }
}

TYPED_TEST(Fragments, CIsCutes) {
  const typename TypeParam::Traits::CLayout layout;
  ASSERT_EQ(int{cute::size(layout)}, kLanes * 4);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      EXPECT_EQ(at(layout, lane, reg), c_row(lane, reg) + kMmaRows * c_column(lane, reg))
          << "lane " << lane << ", register " << reg;
    }
  }
}

// CuTe gives several lanes the same scales, of which selectors choose those that count: in each
// quad, 0 chooses the lower two lanes for A and the lowest for B (PTX ISA, "Block Scaling for
// mma.sync").
TYPED_TEST(Fragments, ScalesOfAAreCutes) {
  constexpr int k = mma_k(TypeParam::codes);
  const typename TypeParam::Traits::SFALayout layout;
  for (int row = 0; row < kMmaRows; ++row) {
    const int lane = a_scale_lane(row);
    EXPECT_LT(lane % 4, 2);
    for (int value = 0; value < k; ++value) {
      EXPECT_EQ(at(layout, lane, value), row + kMmaRows * value) << "row " << row;
    }
  }
}

TYPED_TEST(Fragments, ScalesOfBAreCutes) {
  constexpr int k = mma_k(TypeParam::codes);
  const typename TypeParam::Traits::SFBLayout layout;
  for (int column = 0; column < kMmaColumns; ++column) {
    const int lane = b_scale_lane(column);
    EXPECT_EQ(lane % 4, 0);
    for (int value = 0; value < k; ++value) {
      EXPECT_EQ(at(layout, lane, value), column + kMmaColumns * value) << "column " << column;
    }
  }
}

}  // namespace
}  // namespace micromix::kernels::cuda::block_scaled
