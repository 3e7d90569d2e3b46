// Decoders of a tokenizer.json: from tokens to text.
//
// Each is a stage that gets tokens one by one and passes on what is settled, so that decoding a
// stream and decoding a whole sequence are one code. A stage that fuses (Fuse, ByteLevel) passes on
// pieces of one long token; after it only stages that can work on such pieces are allowed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "micromix/base/json.h"

namespace micromix {

// Takes a stage's next token.
using TokenSink = std::function<void(std::string)>;

// One stage's state over one sequence.
class DecoderState {
 public:
  virtual ~DecoderState() = default;
  virtual void push(std::string token, const TokenSink& next) = 0;
  virtual void finish(const TokenSink&) {}
};

class DecoderStage {
 public:
  virtual ~DecoderStage() = default;
  virtual std::unique_ptr<DecoderState> start() const = 0;
};

class Decoder {
 public:
  // TOKENIZER's "decoder"; null puts a space between tokens. Throws Error naming a component that
  // is not supported. Supported: ByteLevel, Replace, ByteFallback, Fuse, Strip (at the start),
  // Metaspace, and Sequence of them.
  static Decoder parse(const JsonObject& tokenizer);
  // Llama-2's: "▁" is a space, byte tokens are bytes, and the first space is dropped.
  static Decoder sentencepiece();

  // One sequence being decoded.
  class Run {
   public:
    explicit Run(const Decoder& decoder);
    // The text that TOKEN completes, and the rest.
    std::string push(const std::string& token);
    std::string finish();

   private:
    void pass(size_t stage, std::string token, std::string& text);

    std::vector<std::unique_ptr<DecoderState>> states_;
  };

 private:
  void add(const JsonObject& component, bool& fused);

  std::vector<std::shared_ptr<const DecoderStage>> stages_;
};

}  // namespace micromix
