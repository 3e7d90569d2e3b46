// Tensor names of the supported architectures, which all share one scheme.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "micromix/checkpoint/plan.h"
#include "micromix/mx/format.h"

namespace micromix::names {

inline const std::string kEmbedding = "model.embed_tokens.weight";
inline const std::string kFinalNorm = "model.norm.weight";
inline const std::string kLmHead = "lm_head";

inline std::string layer(int64_t index) {
  return fmt::format("model.layers.{}", index);
}

// "q_proj", …: what --keep matches within, and how reports group.
constexpr std::string_view short_name(LinearRole role) {
  switch (role) {
    case LinearRole::kQ:
      return "q_proj";
    case LinearRole::kK:
      return "k_proj";
    case LinearRole::kV:
      return "v_proj";
    case LinearRole::kO:
      return "o_proj";
    case LinearRole::kGate:
      return "gate_proj";
    case LinearRole::kUp:
      return "up_proj";
    case LinearRole::kDown:
      return "down_proj";
  }
  return {};
}

// "qkv", "o", "gate_up", "down"
constexpr std::string_view short_name(InputRole role) {
  switch (role) {
    case InputRole::kAttention:
      return "qkv";
    case InputRole::kOutput:
      return "o";
    case InputRole::kMlp:
      return "gate_up";
    case InputRole::kDown:
      return "down";
  }
  return {};
}

// "model.layers.3.self_attn.q_proj"
inline std::string linear(int64_t index, LinearRole role) {
  const bool mlp = input_of(role) == InputRole::kMlp || input_of(role) == InputRole::kDown;
  return fmt::format("{}.{}.{}", layer(index), mlp ? "mlp" : "self_attn", short_name(role));
}

// Tensors of the quantized linear MODULE (docs/format.md).
inline std::string codes(const std::string& module, mx::Format format) {
  return fmt::format("{}.weight_{}", module, mx::name(format));
}
inline std::string scales(const std::string& module, mx::Format format) {
  return codes(module, format) + "_scale";
}
inline std::string input_perm(const std::string& module) {
  return module + ".input_perm";
}
inline std::string folded_perm(const std::string& module) {
  return module + ".folded_perm";
}

}  // namespace micromix::names
