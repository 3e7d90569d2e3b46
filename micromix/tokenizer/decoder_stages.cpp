#include "micromix/tokenizer/decoder_stages.h"

#include <utility>

#include "micromix/tokenizer/byte_alphabet.h"
#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/metaspace.h"
#include "micromix/tokenizer/pattern.h"
#include "micromix/tokenizer/utf8.h"

namespace micromix {
namespace {

// A stage whose state is a State made from a const Options&.
template <typename State, typename Options>
class StageOf : public DecoderStage {
 public:
  explicit StageOf(Options options) : options_(std::move(options)) {}
  std::unique_ptr<DecoderState> start() const override { return std::make_unique<State>(options_); }

 private:
  Options options_;
};

struct None {};

class ByteLevelState : public DecoderState {
 public:
  explicit ByteLevelState(const None&) {}

  // A token with a character outside the alphabet (an added token, say) stands for itself.
  void push(std::string token, const TokenSink& next) override {
    std::string text;
    lossy_.push(from_byte_alphabet(token).value_or(token), text);
    if (!text.empty()) next(std::move(text));
  }
  void finish(const TokenSink& next) override {
    std::string text;
    lossy_.finish(text);
    if (!text.empty()) next(std::move(text));
  }

 private:
  LossyUtf8 lossy_;
};

struct ReplaceOptions {
  Pattern pattern;
  std::string content;
};

class ReplaceState : public DecoderState {
 public:
  explicit ReplaceState(const ReplaceOptions& options) : options_(options) {}
  void push(std::string token, const TokenSink& next) override {
    next(options_.pattern.replace(token, options_.content));
  }

 private:
  const ReplaceOptions& options_;
};

int hexadecimal_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Byte tokens, <0xHH>: a run of them is text where all of it is UTF-8, else one U+FFFD each.
class ByteFallbackState : public DecoderState {
 public:
  explicit ByteFallbackState(const None&) {}

  void push(std::string token, const TokenSink& next) override {
    if (const auto byte = byte_of(token)) {
      run_.push_back(*byte);
      return;
    }
    finish(next);
    next(std::move(token));
  }

  void finish(const TokenSink& next) override {
    if (run_.empty()) return;
    const std::string run = std::exchange(run_, {});
    if (first_invalid_utf8(run) == run.size()) {
      next(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) next(std::string(kReplacementCharacter));
    }
  }

 private:
  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    const int high = hexadecimal_digit(token[3]);
    const int low = hexadecimal_digit(token[4]);
    // Rust's from_str_radix takes a sign: "<0x+A>" is 10 in Hugging Face tokenizers.
    if (token[3] == '+' && low >= 0) return static_cast<char>(low);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(high << 4 | low);
  }

  std::string run_;
};

class MetaspaceState : public DecoderState {
 public:
  explicit MetaspaceState(const Metaspace& metaspace) : metaspace_(metaspace) {}
  void push(std::string token, const TokenSink& next) override {
    next(metaspace_.unmark(token, std::exchange(is_first_, false)));
  }

 private:
  const Metaspace& metaspace_;
  bool is_first_ = true;
};

struct StripOptions {
  std::string content;  // one character
  int64_t start;        // as many of them, at most
  bool fused;
};

class StripState : public DecoderState {
 public:
  explicit StripState(const StripOptions& options) : options_(options), left_(options.start) {}

  void push(std::string token, const TokenSink& next) override {
    if (!options_.fused) left_ = options_.start;
    size_t cut = 0;
    while (left_ > 0 && token.compare(cut, options_.content.size(), options_.content) == 0) {
      cut += options_.content.size();
      --left_;
    }
    if (cut < token.size()) left_ = 0;
    next(token.substr(cut));
  }

 private:
  const StripOptions& options_;
  int64_t left_;
};

class JoinState : public DecoderState {
 public:
  explicit JoinState(const None&) {}
  void push(std::string token, const TokenSink& next) override {
    next(std::exchange(is_first_, false) ? token : " " + token);
  }

 private:
  bool is_first_ = true;
};

}  // namespace

std::shared_ptr<const DecoderStage> byte_level_stage(const JsonObject& component) {
  require_known_keys(component, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  return std::make_shared<StageOf<ByteLevelState, None>>(None{});
}

std::shared_ptr<const DecoderStage> replace_stage(const JsonObject& component) {
  require_known_keys(component, {"type", "pattern", "content"});
  return std::make_shared<StageOf<ReplaceState, ReplaceOptions>>(
      ReplaceOptions{Pattern(component), component.string("content")});
}

std::shared_ptr<const DecoderStage> byte_fallback_stage(const JsonObject& component) {
  require_known_keys(component, {"type"});
  return std::make_shared<StageOf<ByteFallbackState, None>>(None{});
}

std::shared_ptr<const DecoderStage> metaspace_stage(const JsonObject& component) {
  return std::make_shared<StageOf<MetaspaceState, Metaspace>>(Metaspace(component));
}

std::shared_ptr<const DecoderStage> strip_stage(const JsonObject& component, bool fused) {
  require_known_keys(component, {"type", "content", "start", "stop"});
  if (component.integer("stop", 0, INT64_MAX) != 0) unsupported(component, "stop", "0");
  StripOptions options{component.string("content"), component.integer("start", 0, INT64_MAX),
                       fused};
  if (options.content.empty() || utf8_length(options.content[0]) != options.content.size()) {
    component.fail("content", describe(component.at("content")), "one character");
  }
  return std::make_shared<StageOf<StripState, StripOptions>>(std::move(options));
}

std::shared_ptr<const DecoderStage> join_stage() {
  return std::make_shared<StageOf<JoinState, None>>(None{});
}

}  // namespace micromix
