// A model's folder with tokenizer files that a test writes.
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "micromix/base/error.h"
#include "micromix/base/json.h"
#include "micromix/tokenizer/tokenizer.h"

namespace micromix {

class TemporaryModel {
 public:
  TemporaryModel() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(test->test_suite_name()) + "." + test->name();
    for (char& c : name) c = c == '/' ? '_' : c;
    folder_ = std::filesystem::temp_directory_path() /
              (name + "." + std::to_string(getpid()) + "." + std::to_string(made_++));
    std::filesystem::create_directories(folder_);
  }
  ~TemporaryModel() { std::filesystem::remove_all(folder_); }

  const std::filesystem::path& folder() const { return folder_; }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  std::unique_ptr<Tokenizer> load() const { return Tokenizer::load(folder_); }

 private:
  static inline int made_ = 0;
  std::filesystem::path folder_;
};

inline std::unique_ptr<Tokenizer> load_json(const Json& json) {
  TemporaryModel model;
  model.write("tokenizer.json", json.dump());
  return model.load();
}

// The message of the Error that ACTION throws.
template <typename Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// A tokenizer of the letters a and b, with merges "ab" and "abb".
inline Json tiny_tokenizer() {
  return Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
              "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
              "byte_fallback": false, "ignore_merges": false,
              "vocab": {"a": 0, "b": 1, "ab": 2, "abb": 3},
              "merges": [["a", "b"], ["ab", "b"]]}})");
}

}  // namespace micromix
