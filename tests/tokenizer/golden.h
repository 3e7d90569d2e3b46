// Golden encodings: one JSON object a line, of text, ids, ids_special (maybe) and decoded.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "micromix/base/json.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

inline std::string stream(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

inline std::vector<Json> read_lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(parse_json(line, path.string()));
  }
  return lines;
}

inline void check_line(const Tokenizer& tokenizer, const Json& line) {
  const auto text = line.at("text").get<std::string>();
  const auto ids = line.at("ids").get<std::vector<TokenId>>();
  const auto decoded = line.at("decoded").get<std::string>();
  EXPECT_EQ(tokenizer.encode(text, false), ids) << line;
  EXPECT_EQ(tokenizer.decode(ids), decoded) << line;
  EXPECT_EQ(stream(tokenizer, ids), decoded) << line;
  if (!line.contains("ids_special")) return;
  EXPECT_EQ(tokenizer.encode(text, true), line.at("ids_special").get<std::vector<TokenId>>())
      << line;
}

inline void check_golden(const std::filesystem::path& model, const std::filesystem::path& golden) {
  const auto tokenizer = Tokenizer::load(model);
  const auto lines = read_lines(golden);
  EXPECT_GT(lines.size(), 100u);
  for (const Json& line : lines) check_line(*tokenizer, line);
}

}  // namespace micromix
