// The emulated block-scaled instructions against instructions that Ampere and Hopper have, and
// against FP64 on the host: where arithmetic is exact, equality. On GPUs of compute capability 12.x
// the native ones too.
#include "tests/cuda/block_scaled_mma.h"

#include <cmath>
#include <limits>

#include "micromix/kernels/cuda/block_scaled/fragments.h"
#include "micromix/mx/element.h"
#include "micromix/mx/scale.h"
#include "tests/kernels/random_linear.h"
#include "tests/testing.h"

namespace micromix::kernels::cuda::block_scaled {
namespace {

using testing::available;
using testing::Instruction;
using testing::kLanes;
using testing::Random;
using testing::WarpRegisters;
using testing::WarpSums;

constexpr int kMostK = 64, kProblems = 64;

bool is_integer(Instruction instruction) {
  return instruction == Instruction::kS4 || instruction == Instruction::kS8;
}

bool is_native(Instruction instruction) {
  return instruction == Instruction::kNativeE2m1 || instruction == Instruction::kNativeE4m3;
}

// Bits of an operand's code.
int bits_of(Instruction instruction) {
  switch (instruction) {
    case Instruction::kEmulatedE2m1:
    case Instruction::kNativeE2m1:
    case Instruction::kS4:
      return 4;
    default:
      return 8;
  }
}

int k_of(Instruction instruction) {
  return mma_k(32 / bits_of(instruction));
}

mx::Format format_of(Instruction instruction) {
  return bits_of(instruction) == 4 ? mx::Format::kE2M1 : mx::Format::kE4M3;
}

// The greatest power of two that all of E2M1 are multiples of; of E4M3 only integers are compared
// with integers.
float unit_of(Instruction instruction) {
  return bits_of(instruction) == 4 ? 0.5f : 1.0f;
}

// The code of 1 in an operand.
uint8_t one_of(Instruction instruction) {
  return is_integer(instruction) ? 1 : mx::encode(format_of(instruction), 1.0f);
}

// A [16, K], B [K, 8] and SUM [16, 8]; a scale byte for each 32 k of a row of A, of a column of B.
struct Operands {
  uint8_t a[kMmaRows][kMostK] = {};
  uint8_t b[kMostK][kMmaColumns] = {};
  float sum[kMmaRows][kMmaColumns] = {};
  uint8_t a_scales[kMmaRows][2] = {};
  uint8_t b_scales[kMmaColumns][2] = {};
};

using Outputs = std::array<std::array<float, kMmaColumns>, kMmaRows>;

void set_byte(uint32_t& word, int byte, uint8_t value) {
  word = (word & ~(0xFFu << 8 * byte)) | uint32_t{value} << 8 * byte;
}

void place_codes(Instruction instruction, const Operands& operands, WarpRegisters& warp) {
  const int bits = bits_of(instruction), codes = 32 / bits;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      for (int index = 0; index < codes; ++index) {
        const uint32_t code = operands.a[a_row(lane, reg)][a_k(codes, lane, reg, index)];
        warp.a[lane][reg] |= code << bits * index;
      }
    }
    for (int reg = 0; reg < 2; ++reg) {
      for (int index = 0; index < codes; ++index) {
        const uint32_t code = operands.b[b_k(codes, lane, reg, index)][b_column(lane)];
        warp.b[lane][reg] |= code << bits * index;
      }
    }
  }
}

// Garbage is in scale registers that count for nothing, and in their bytes.
void place_scales(Random& random, Instruction instruction, const Operands& operands,
                  WarpRegisters& warp) {
  for (int lane = 0; lane < kLanes; ++lane) {
    warp.a_scales[lane] = random();
    warp.b_scales[lane] = random();
  }
  for (int block = 0; block < k_of(instruction) / mx::kBlockSize; ++block) {
    for (int row = 0; row < kMmaRows; ++row) {
      set_byte(warp.a_scales[a_scale_lane(row)], block, operands.a_scales[row][block]);
    }
    for (int column = 0; column < kMmaColumns; ++column) {
      set_byte(warp.b_scales[b_scale_lane(column)], block, operands.b_scales[column][block]);
    }
  }
}

WarpRegisters to_registers(Random& random, Instruction instruction, const Operands& operands) {
  WarpRegisters warp = {};
  place_codes(instruction, operands, warp);
  place_scales(random, instruction, operands, warp);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      warp.sum[lane][reg] = operands.sum[c_row(lane, reg)][c_column(lane, reg)];
    }
  }
  return warp;
}

std::vector<Outputs> multiply_registers(Instruction instruction,
                                        const std::vector<WarpRegisters>& warps) {
  std::vector<Outputs> all;
  for (const WarpSums& sums : testing::multiply(instruction, warps)) {
    Outputs& outputs = all.emplace_back();
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int reg = 0; reg < 4; ++reg) {
        outputs[c_row(lane, reg)][c_column(lane, reg)] = sums[lane][reg];
      }
    }
  }
  return all;
}

std::vector<Outputs> multiply(Random& random, Instruction instruction,
                              const std::vector<Operands>& problems) {
  std::vector<WarpRegisters> warps;
  for (const Operands& operands : problems) {
    warps.push_back(to_registers(random, instruction, operands));
  }
  return multiply_registers(instruction, warps);
}

// What FP64 gives, rounded once (mma.cuh).
Outputs expected_outputs(Instruction instruction, const Operands& operands) {
  const auto& values = mx::decode_table(format_of(instruction));
  Outputs outputs;
  for (int row = 0; row < kMmaRows; ++row) {
    for (int column = 0; column < kMmaColumns; ++column) {
      double total = operands.sum[row][column];
      for (int from = 0; from < k_of(instruction); from += mx::kBlockSize) {
        double products = 0;
        for (int k = from; k < from + mx::kBlockSize; ++k) {
          products +=
              static_cast<double>(values[operands.a[row][k]]) * values[operands.b[k][column]];
        }
        const int block = from / mx::kBlockSize;
        total += products * mx::decode_scale(operands.a_scales[row][block]) *
                 mx::decode_scale(operands.b_scales[column][block]);
      }
      outputs[row][column] = static_cast<float>(total);
    }
  }
  return outputs;
}

// Equal, or NaN both; of the first output that is not, the place.
::testing::AssertionResult same(const Outputs& found, const Outputs& expected) {
  for (int row = 0; row < kMmaRows; ++row) {
    for (int column = 0; column < kMmaColumns; ++column) {
      const float is = found[row][column], should = expected[row][column];
      if (is == should || (std::isnan(is) && std::isnan(should))) continue;
      return ::testing::AssertionFailure()
             << "row " << row << ", column " << column << ": " << is << ", expected " << should;
    }
  }
  return ::testing::AssertionSuccess();
}

// Codes whose values are multiples of the unit, at most LARGEST units; signed zeros both.
std::vector<uint8_t> codes_within(Instruction instruction, int largest) {
  std::vector<uint8_t> codes;
  for (int code = 0; code < 1 << bits_of(instruction); ++code) {
    const float units =
        mx::decode(format_of(instruction), static_cast<uint8_t>(code)) / unit_of(instruction);
    if (units == std::trunc(units) && std::fabs(units) <= static_cast<float>(largest)) {
      codes.push_back(static_cast<uint8_t>(code));
    }
  }
  return codes;
}

uint8_t any_of(Random& random, const std::vector<uint8_t>& codes) {
  return codes[random() % codes.size()];
}

int between(Random& random, int low, int high) {
  return std::uniform_int_distribution(low, high)(random);
}

// Codes from CODES and scale bytes from LOW to HIGH; sums are integers of squared units, small
// enough to be exact wherever products are.
Operands random_operands(Random& random, Instruction instruction, const std::vector<uint8_t>& codes,
                         int low, int high) {
  constexpr int kLargestSum = 1000;
  Operands operands;
  for (auto& row : operands.a) {
    for (uint8_t& code : row) code = any_of(random, codes);
  }
  for (auto& row : operands.b) {
    for (uint8_t& code : row) code = any_of(random, codes);
  }
  const float unit = unit_of(instruction) * unit_of(instruction);
  for (auto& row : operands.sum) {
    for (float& sum : row)
      sum = unit * static_cast<float>(between(random, -kLargestSum, kLargestSum));
  }
  for (auto& row : operands.a_scales) {
    for (uint8_t& scale : row) scale = static_cast<uint8_t>(between(random, low, high));
  }
  for (auto& column : operands.b_scales) {
    for (uint8_t& scale : column) scale = static_cast<uint8_t>(between(random, low, high));
  }
  return operands;
}

std::vector<Operands> random_problems(Random& random, Instruction instruction,
                                      const std::vector<uint8_t>& codes, int low, int high) {
  std::vector<Operands> problems;
  for (int i = 0; i < kProblems; ++i) {
    problems.push_back(random_operands(random, instruction, codes, low, high));
  }
  return problems;
}

// Sums of products of so many units at most are below 2^13 squared units. How wide tensor cores add
// FP8 products NVIDIA does not say; Hopper's keep the highest 14 bits of products aligned to the
// largest (DeepSeek-AI, "DeepSeek-V3 Technical Report", section 3.5.2, arXiv 2412.19437).
constexpr int kLargestExact = 8;

class BlockScaledMma : public ::testing::TestWithParam<Instruction> {
 protected:
  void SetUp() override {
    if (!available(GetParam())) GTEST_SKIP() << "not an instruction of this GPU, or of this build";
  }
  Random random_{1};
};

// One code alone in A: the row that has outputs is its row, and columns of B spell its k in binary,
// the last being ones.
TEST_P(BlockScaledMma, EveryCodeOfAIsWhereFragmentsSay) {
  const Instruction instruction = GetParam();
  const int bits = bits_of(instruction), codes = 32 / bits;
  const auto is_set = [](int k, int column) {
    return column == kMmaColumns - 1 || (k >> column & 1) != 0;
  };
  Operands ones;
  for (auto& row : ones.a_scales) row[0] = row[1] = mx::kScaleOne;
  for (auto& column : ones.b_scales) column[0] = column[1] = mx::kScaleOne;
  for (int k = 0; k < k_of(instruction); ++k) {
    for (int column = 0; column < kMmaColumns; ++column) {
      ones.b[k][column] = is_set(k, column) ? one_of(instruction) : 0;
    }
  }
  std::vector<WarpRegisters> warps;
  std::vector<Outputs> expected;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      for (int index = 0; index < codes; ++index) {
        warps.push_back(to_registers(random_, instruction, ones));
        warps.back().a[lane][reg] = uint32_t{one_of(instruction)} << bits * index;
        Outputs& outputs = expected.emplace_back();
        for (auto& row : outputs) row.fill(0);
        for (int column = 0; column < kMmaColumns; ++column) {
          outputs[a_row(lane, reg)][column] =
              is_set(a_k(codes, lane, reg, index), column) ? 1.0f : 0.0f;
        }
      }
    }
  }
  const std::vector<Outputs> found = multiply_registers(instruction, warps);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same(found[i], expected[i])) << i;
}

// The same of B, with rows of A.
TEST_P(BlockScaledMma, EveryCodeOfBIsWhereFragmentsSay) {
  const Instruction instruction = GetParam();
  const int bits = bits_of(instruction), codes = 32 / bits;
  const auto is_set = [](int k, int row) { return row == kMmaRows - 1 || (k >> row & 1) != 0; };
  Operands ones;
  for (auto& row : ones.a_scales) row[0] = row[1] = mx::kScaleOne;
  for (auto& column : ones.b_scales) column[0] = column[1] = mx::kScaleOne;
  for (int row = 0; row < kMmaRows; ++row) {
    for (int k = 0; k < k_of(instruction); ++k) {
      ones.a[row][k] = is_set(k, row) ? one_of(instruction) : 0;
    }
  }
  std::vector<WarpRegisters> warps;
  std::vector<Outputs> expected;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int reg = 0; reg < 2; ++reg) {
      for (int index = 0; index < codes; ++index) {
        warps.push_back(to_registers(random_, instruction, ones));
        warps.back().b[lane][reg] = uint32_t{one_of(instruction)} << bits * index;
        Outputs& outputs = expected.emplace_back();
        for (int row = 0; row < kMmaRows; ++row) {
          outputs[row].fill(0);
          outputs[row][b_column(lane)] = is_set(b_k(codes, lane, reg, index), row) ? 1.0f : 0.0f;
        }
      }
    }
  }
  const std::vector<Outputs> found = multiply_registers(instruction, warps);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same(found[i], expected[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Each, BlockScaledMma,
                         ::testing::Values(Instruction::kEmulatedE2m1, Instruction::kEmulatedE4m3,
                                           Instruction::kNativeE2m1, Instruction::kNativeE4m3,
                                           Instruction::kS4, Instruction::kS8, Instruction::kE4m3),
                         [](const auto& each) { return std::string(name(each.param)); });

// Block-scaled instructions alone.
using BlockScaledMmaScales = BlockScaledMma;

TEST_P(BlockScaledMmaScales, CountInTheirLanesAlone) {
  // Products of four units at most and scales of 1 or 2 keep sums exact as kLargestExact does.
  const Instruction instruction = GetParam();
  const auto problems = random_problems(random_, instruction, codes_within(instruction, 4),
                                        mx::kScaleOne, mx::kScaleOne + 1);
  const std::vector<Outputs> found = multiply(random_, instruction, problems);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(same(found[i], expected_outputs(instruction, problems[i]))) << i;
  }
}

// 2^-127 is no normal FP32 number, and together they are 1.
TEST_P(BlockScaledMmaScales, SmallestTimesLargestIsOne) {
  const Instruction instruction = GetParam();
  const auto codes = codes_within(instruction, kLargestExact);
  auto problems = random_problems(random_, instruction, codes, mx::kScaleOne, mx::kScaleOne);
  const std::vector<Outputs> expected = multiply(random_, instruction, problems);
  for (int smallest_of_a = 0; smallest_of_a < 2; ++smallest_of_a) {
    for (Operands& operands : problems) {
      for (auto& row : operands.a_scales) row[0] = row[1] = smallest_of_a != 0 ? 0 : 254;
      for (auto& column : operands.b_scales) column[0] = column[1] = smallest_of_a != 0 ? 254 : 0;
    }
    const std::vector<Outputs> found = multiply(random_, instruction, problems);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same(found[i], expected[i])) << i;
  }
}

// Scales, and codes of the format that has NaN.
TEST_P(BlockScaledMmaScales, NanIsOfItsRowOrColumnAlone) {
  const Instruction instruction = GetParam();
  const auto codes = codes_within(instruction, kLargestExact);
  std::vector<Operands> problems;
  const auto add = [&]() -> Operands& {
    return problems.emplace_back(
        random_operands(random_, instruction, codes, mx::kScaleOne, mx::kScaleOne));
  };
  for (int block = 0; block < k_of(instruction) / mx::kBlockSize; ++block) {
    for (int row = 0; row < kMmaRows; ++row) add().a_scales[row][block] = mx::kScaleNan;
    for (int column = 0; column < kMmaColumns; ++column) {
      add().b_scales[column][block] = mx::kScaleNan;
    }
  }
  for (int k = 0; k < k_of(instruction) && mx::traits(format_of(instruction)).has_nan; ++k) {
    for (const uint8_t nan : {0x7F, 0xFF}) {
      add().a[between(random_, 0, kMmaRows - 1)][k] = nan;
      add().b[k][between(random_, 0, kMmaColumns - 1)] = nan;
    }
  }
  const std::vector<Outputs> found = multiply(random_, instruction, problems);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(same(found[i], expected_outputs(instruction, problems[i]))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Each, BlockScaledMmaScales,
                         ::testing::Values(Instruction::kEmulatedE2m1, Instruction::kEmulatedE4m3,
                                           Instruction::kNativeE2m1, Instruction::kNativeE4m3),
                         [](const auto& each) { return std::string(name(each.param)); });

// What no hardware promises: FP64 throughout.
using BlockScaledMmaEmulated = BlockScaledMma;

TEST_P(BlockScaledMmaEmulated, AnyCodesAndScalesAreTheHostsFp64) {
  const Instruction instruction = GetParam();
  std::vector<uint8_t> codes;
  for (int code = 0; code < 1 << bits_of(instruction); ++code) {
    codes.push_back(static_cast<uint8_t>(code));
  }
  std::erase_if(codes,
                [&](uint8_t code) { return std::isnan(mx::decode(format_of(instruction), code)); });
  std::normal_distribution<float> normal;
  // The last range has results beyond FP32's too, and subnormal ones.
  for (const auto& [low, high] : {std::pair{120, 134}, std::pair{100, 160}, std::pair{0, 254}}) {
    auto problems = random_problems(random_, instruction, codes, low, high);
    for (Operands& operands : problems) {
      for (auto& row : operands.sum) {
        for (float& sum : row) sum = std::ldexp(normal(random_), between(random_, -20, 20));
      }
    }
    const std::vector<Outputs> found = multiply(random_, instruction, problems);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(same(found[i], expected_outputs(instruction, problems[i])))
          << i << ", scales " << low << " to " << high;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Each, BlockScaledMmaEmulated,
                         ::testing::Values(Instruction::kEmulatedE2m1, Instruction::kEmulatedE4m3),
                         [](const auto& each) { return std::string(name(each.param)); });

// Instruction and another whose fragments are the same.
struct Pair {
  Instruction instruction;
  Instruction peer;

  std::string name() const { return std::string(testing::name(instruction)) + testing::name(peer); }
  friend std::ostream& operator<<(std::ostream& out, const Pair& pair) {
    return out << pair.name();
  }
};

class BlockScaledMmaPeers : public ::testing::TestWithParam<Pair> {
 protected:
  void SetUp() override {
    if (!available(GetParam().instruction) || !available(GetParam().peer)) {
      GTEST_SKIP() << "not instructions of this GPU, or of this build";
    }
  }
  Random random_{1};
};

// The integer, in units, that a code stands for, as a code of as many bits.
uint8_t to_integer(Instruction instruction, uint8_t code) {
  const float units = mx::decode(format_of(instruction), code) / unit_of(instruction);
  return static_cast<uint8_t>(static_cast<int>(units) & ((1 << bits_of(instruction)) - 1));
}

// Sums and products in units.
Operands to_integers(Instruction instruction, Operands operands) {
  for (auto& row : operands.a) {
    for (uint8_t& code : row) code = to_integer(instruction, code);
  }
  for (auto& row : operands.b) {
    for (uint8_t& code : row) code = to_integer(instruction, code);
  }
  const float unit = unit_of(instruction) * unit_of(instruction);
  for (auto& row : operands.sum) {
    for (float& sum : row) sum /= unit;
  }
  return operands;
}

// The emulated sum of integers is exact whatever they are.
int largest_operand(const Pair& pair) {
  return is_integer(pair.peer) && !is_native(pair.instruction) ? 1 << (bits_of(pair.peer) - 1)
                                                               : kLargestExact;
}

TEST_P(BlockScaledMmaPeers, AreEqualWhereSumsAreExact) {
  const auto [instruction, peer] = GetParam();
  std::vector<uint8_t> codes = codes_within(instruction, largest_operand(GetParam()));
  if (is_integer(peer)) {
    const float lowest = static_cast<float>(1 << (bits_of(peer) - 1)) * unit_of(instruction);
    std::erase_if(codes, [&, format = format_of(instruction)](uint8_t code) {
      return mx::decode(format, code) == lowest;  // two's complement has no such positive number
    });
  }
  const auto problems = random_problems(random_, instruction, codes, mx::kScaleOne, mx::kScaleOne);
  std::vector<Operands> peer_problems = problems;
  if (is_integer(peer)) {
    for (Operands& operands : peer_problems) operands = to_integers(instruction, operands);
  }
  const std::vector<Outputs> found = multiply(random_, instruction, problems);
  std::vector<Outputs> expected = multiply(random_, peer, peer_problems);
  const float unit = is_integer(peer) ? unit_of(instruction) * unit_of(instruction) : 1.0f;
  for (Outputs& outputs : expected) {
    for (auto& row : outputs) {
      for (float& value : row) value *= unit;
    }
  }
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same(found[i], expected[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Each, BlockScaledMmaPeers,
                         ::testing::Values(Pair{Instruction::kEmulatedE2m1, Instruction::kS4},
                                           Pair{Instruction::kEmulatedE4m3, Instruction::kS8},
                                           Pair{Instruction::kEmulatedE4m3, Instruction::kE4m3},
                                           Pair{Instruction::kNativeE2m1, Instruction::kS4},
                                           Pair{Instruction::kNativeE4m3, Instruction::kS8},
                                           Pair{Instruction::kNativeE4m3, Instruction::kE4m3}),
                         [](const auto& each) { return each.param.name(); });

}  // namespace
}  // namespace micromix::kernels::cuda::block_scaled
