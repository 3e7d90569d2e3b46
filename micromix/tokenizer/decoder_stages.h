// The stages that decoders consist of.
#pragma once

#include <memory>

#include "micromix/base/json.h"
#include "micromix/tokenizer/decoder.h"

namespace micromix {

// Each throws Error where COMPONENT has an option that is not supported.
std::shared_ptr<const DecoderStage> byte_level_stage(const JsonObject& component);
std::shared_ptr<const DecoderStage> replace_stage(const JsonObject& component);
std::shared_ptr<const DecoderStage> byte_fallback_stage(const JsonObject& component);
std::shared_ptr<const DecoderStage> metaspace_stage(const JsonObject& component);
// FUSED: the tokens are pieces of one, and only its start is stripped.
std::shared_ptr<const DecoderStage> strip_stage(const JsonObject& component, bool fused);
// A space between tokens.
std::shared_ptr<const DecoderStage> join_stage();

}  // namespace micromix
