#include "micromix/tokenizer/pre_tokenizer.h"

#include <utility>

#include "micromix/base/error.h"
#include "micromix/tokenizer/byte_alphabet.h"
#include "micromix/tokenizer/component.h"
#include "micromix/tokenizer/metaspace.h"
#include "micromix/tokenizer/pattern.h"

namespace micromix {
namespace {

// GPT-2's words.
constexpr const char* kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Calls PART(begin, end, is_match) for the matches in TEXT and what lies between them.
template <typename Finder, typename Part>
void for_each_part(const Finder& finder, std::string_view text, const Part& part) {
  size_t previous = 0;
  finder.for_each_match(text, [&](size_t begin, size_t end) {
    if (previous != begin) part(previous, begin, false);
    if (begin != end) part(begin, end, true);
    previous = end;
  });
  if (previous != text.size()) part(previous, text.size(), false);
}

Piece slice(const Piece& piece, size_t begin, size_t end) {
  return {piece.text.substr(begin, end - begin), piece.at_start && begin == 0};
}

class Split : public PreTokenizer {
 public:
  explicit Split(const JsonObject& component)
      : pattern_(component), invert_(component.boolean_or("invert", false)) {
    require_known_keys(component, {"type", "pattern", "behavior", "invert"});
    const std::string behavior = component.string("behavior");
    if (behavior != "Isolated" && behavior != "Removed") {
      unsupported(component, "behavior", "Isolated or Removed");
    }
    remove_ = behavior == "Removed";
  }

  void split(Piece piece, std::vector<Piece>& out) const override {
    for_each_part(pattern_, piece.text, [&](size_t begin, size_t end, bool is_match) {
      if (remove_ && is_match != invert_) return;
      out.push_back(slice(piece, begin, end));
    });
  }

 private:
  Pattern pattern_;
  bool invert_;  // what does not match is the delimiter
  bool remove_ = false;
};

class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const JsonObject& component)
      : add_prefix_space_(component.boolean_or("add_prefix_space", true)) {
    require_known_keys(component, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (component.boolean_or("use_regex", true)) {
      words_.emplace(kGpt2Words, component.file(), component.path_of("use_regex"));
    }
  }

  void split(Piece piece, std::vector<Piece>& out) const override {
    if (add_prefix_space_ && piece.text.front() != ' ') piece.text.insert(0, 1, ' ');
    if (!words_) {
      out.push_back({to_byte_alphabet(piece.text), piece.at_start});
      return;
    }
    for_each_part(*words_, piece.text, [&](size_t begin, size_t end, bool) {
      const std::string_view word = std::string_view(piece.text).substr(begin, end - begin);
      out.push_back({to_byte_alphabet(word), piece.at_start && begin == 0});
    });
  }

 private:
  bool add_prefix_space_;
  std::optional<Regex> words_;
};

class MetaspaceSplit : public PreTokenizer {
 public:
  explicit MetaspaceSplit(const JsonObject& component) : metaspace_(component) {}

  void split(Piece piece, std::vector<Piece>& out) const override {
    piece.text = metaspace_.mark(piece.text, piece.at_start);
    if (!metaspace_.splits()) {
      out.push_back(std::move(piece));
      return;
    }
    size_t begin = 0;
    while (begin < piece.text.size()) {
      const size_t end =
          std::min(piece.text.find(metaspace_.replacement(), begin + 1), piece.text.size());
      out.push_back(slice(piece, begin, end));
      begin = end;
    }
  }

 private:
  Metaspace metaspace_;
};

std::unique_ptr<PreTokenizer> parse_component(const JsonObject& component);

// Of no members, it keeps pieces as they are.
class PreTokenizerSequence : public PreTokenizer {
 public:
  PreTokenizerSequence() = default;
  explicit PreTokenizerSequence(const JsonObject& component) {
    require_known_keys(component, {"type", "pretokenizers"});
    for_each_object(component, "pretokenizers",
                    [&](const JsonObject& member) { members_.push_back(parse_component(member)); });
  }

  void split(Piece piece, std::vector<Piece>& out) const override {
    std::vector<Piece> pieces;
    pieces.push_back(std::move(piece));
    for (const auto& member : members_) {
      std::vector<Piece> smaller;
      smaller.reserve(pieces.size());
      for (Piece& one : pieces) member->split(std::move(one), smaller);
      pieces = std::move(smaller);
    }
    for (Piece& one : pieces) out.push_back(std::move(one));
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> members_;
};

std::unique_ptr<PreTokenizer> parse_component(const JsonObject& component) {
  const std::string type = component.string("type");
  if (type == "Split") return std::make_unique<Split>(component);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(component);
  if (type == "Metaspace") return std::make_unique<MetaspaceSplit>(component);
  if (type == "Sequence") return std::make_unique<PreTokenizerSequence>(component);
  unsupported(component, "type", "Split, ByteLevel, Metaspace or Sequence");
}

}  // namespace

std::unique_ptr<PreTokenizer> PreTokenizer::parse(const JsonObject& tokenizer) {
  if (!tokenizer.has("pre_tokenizer")) return std::make_unique<PreTokenizerSequence>();
  return parse_component(tokenizer.object("pre_tokenizer"));
}

}  // namespace micromix
