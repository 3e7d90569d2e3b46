// Pre-tokenizers of a tokenizer.json: how normalized text is split into pieces that BPE merges
// within.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "micromix/base/json.h"

namespace micromix {

// A stretch of text on its way to the model. Valid UTF-8, not empty.
struct Piece {
  std::string text;
  bool at_start;  // whether it begins where the whole input does
};

class PreTokenizer {
 public:
  // TOKENIZER's "pre_tokenizer"; null keeps pieces whole. Throws Error naming a component or option
  // that is not supported. Supported: Split (Isolated or Removed, either inverted), ByteLevel,
  // Metaspace, and Sequence of them.
  static std::unique_ptr<PreTokenizer> parse(const JsonObject& tokenizer);

  virtual ~PreTokenizer() = default;
  // Appends the pieces of PIECE to OUT.
  virtual void split(Piece piece, std::vector<Piece>& out) const = 0;
};

}  // namespace micromix
