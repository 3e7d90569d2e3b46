// A plan: for one linear input, the order of its channels and the segments they fall into.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "micromix/mx/format.h"

namespace micromix {

struct Plan {
  // [K], gather form: permuted channel j is original channel permutation[j]. Empty: identity.
  std::vector<int32_t> permutation;
  // Channels per operand format, in the order of mx::kOperandFormats; multiples of 32, together K.
  std::array<int64_t, mx::kOperandFormats.size()> channels{};

  int64_t size() const {
    int64_t sum = 0;
    for (int64_t count : channels) sum += count;
    return sum;
  }

  // Mean bits per value, block scales included.
  double average_bits() const {
    double bits = 0;
    for (size_t i = 0; i < channels.size(); ++i) {
      bits += static_cast<double>(channels[i]) * mx::bits_per_value(mx::kOperandFormats[i]);
    }
    return bits / static_cast<double>(size());
  }

  bool operator==(const Plan&) const = default;
};

// The four distinct inputs of a decoder layer, and the seven linears that read them.
enum class InputRole : uint8_t { kAttention, kOutput, kMlp, kDown };
inline constexpr std::array kInputRoles = {InputRole::kAttention, InputRole::kOutput,
                                           InputRole::kMlp, InputRole::kDown};

enum class LinearRole : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr std::array kLinearRoles = {LinearRole::kQ,   LinearRole::kK,    LinearRole::kV,
                                            LinearRole::kO,   LinearRole::kGate, LinearRole::kUp,
                                            LinearRole::kDown};

constexpr InputRole input_of(LinearRole role) {
  switch (role) {
    case LinearRole::kQ:
    case LinearRole::kK:
    case LinearRole::kV:
      return InputRole::kAttention;
    case LinearRole::kO:
      return InputRole::kOutput;
    case LinearRole::kGate:
    case LinearRole::kUp:
      return InputRole::kMlp;
    case LinearRole::kDown:
      return InputRole::kDown;
  }
  return InputRole::kAttention;
}

}  // namespace micromix
