// micromix tokenize: text to token ids and back.
#include <cstdio>
#include <memory>
#include <string_view>

#include <fmt/format.h>

#include "commands.h"
#include "common.h"
#include "micromix/base/error.h"
#include "micromix/base/file.h"
#include "micromix/base/json.h"
#include "micromix/model/text.h"

namespace micromix::cli {
namespace {

struct Options {
  std::string model;
  std::string text;
  std::string file;
  std::string jsonl;
  bool special = false;
  bool decode = false;
};

// Calls USE(line, number) for each line that is not empty; numbers from 1.
template <typename Use>
void for_each_line(std::string_view text, const Use& use) {
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    ++number;
    if (end > 0) use(text.substr(0, end), number);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void encode(const Tokenizer& tokenizer, const std::string& text, bool special,
            const std::string& where) {
  fmt::print("{}\n", Json(tokenize(tokenizer, text, special, where)).dump());
}

// One JSON array of ids a line. AS_JSON: as a JSON string, a line each whatever the text holds.
void decode(const Tokenizer& tokenizer, std::string_view line, const std::string& where,
            bool as_json) {
  const Json ids = parse_json(line, where);
  std::vector<TokenId> tokens;
  if (!ids.is_array()) throw_invalid(where, "ids", describe(ids), "a JSON array of token ids");
  for (const Json& id : ids) {
    const bool valid =
        id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX;
    if (!valid) throw_invalid(where, "ids", describe(id), "token ids");
    tokens.push_back(id.get<TokenId>());
  }
  const std::string text = tokenizer.decode(tokens);
  fmt::print("{}\n", as_json ? Json(text).dump() : text);
}

void run(const Options& options) {
  const auto tokenizer = Tokenizer::load(options.model);
  const std::string input = !options.file.empty()    ? read_file(options.file)
                            : !options.jsonl.empty() ? read_file(options.jsonl)
                                                     : options.text;
  const std::string source = !options.file.empty()    ? options.file
                             : !options.jsonl.empty() ? options.jsonl
                                                      : "--text";
  if (options.decode) {
    for_each_line(input, [&](std::string_view line, int64_t number) {
      decode(*tokenizer, line, fmt::format("{}: line {}", source, number), !options.jsonl.empty());
    });
  } else if (!options.jsonl.empty()) {
    for_each_line(input, [&](std::string_view line, int64_t number) {
      const std::string where = fmt::format("{}: line {}", source, number);
      const Json json = parse_json(line, where);
      encode(*tokenizer, JsonObject(json, where).string("text"), options.special, where);
    });
  } else {
    encode(*tokenizer, input, options.special, source);
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "tokenize", "Text to token ids, a JSON array a line; with --decode the other way.");
  add_model(*command, options->model);
  auto* input = command->add_option_group("input")->require_option(1);
  input->add_option("--text", options->text, "The text")->option_text("T");
  input->add_option("--file", options->file, "A file, taken whole")
      ->option_text("F")
      ->check(CLI::ExistingFile);
  input->add_option("--jsonl", options->jsonl, "JSON objects, a line each; their field `text`")
      ->option_text("F")
      ->check(CLI::ExistingFile);
  command->add_flag("--special", options->special,
                    "Add special tokens as the tokenizer's post-processor does");
  command->add_flag(
      "--decode", options->decode,
      "Input is JSON arrays of ids, a line each; prints text, with --jsonl JSON strings");
  command->callback([options] { run(*options); });
}

}  // namespace micromix::cli
