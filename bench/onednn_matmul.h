// oneDNN's matrix product C[m,n] = A[m,k] W[n,k]^T, the baseline: W packed beforehand as oneDNN
// likes it best, A and C row-major.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace micromix::bench {

enum class OnednnType : uint8_t {
  kBF16,  // bf16 x bf16 -> bf16
  kU8S8,  // u8 x s8 -> s32
  kF32,   // f32 x f32 -> f32
};
std::string_view name(OnednnType type);

class OnednnMatmul {
 public:
  // Random operands, and as many packed copies of the weight as make ROTATED_BYTES, at least one.
  // No product where oneDNN has but its reference implementation, or none. Throws Error where a
  // product is wrong.
  static std::unique_ptr<OnednnMatmul> make(OnednnType type, int64_t m, int64_t n, int64_t k,
                                            int64_t rotated_bytes);
  virtual ~OnednnMatmul() = default;

  virtual int64_t copies() const = 0;
  virtual void multiply(int64_t copy) = 0;
  // As oneDNN calls the implementation it chose.
  virtual std::string implementation() const = 0;
};

// oneDNN's version, "2.6.3".
std::string onednn_version();

}  // namespace micromix::bench
