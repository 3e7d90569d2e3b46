// A model folder under construction: OUT.partial until it is whole, then OUT by one rename.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "micromix/base/json.h"
#include "micromix/checkpoint/safetensors.h"

namespace micromix {

// What to do where OUT or OUT.partial is there already.
struct OutputOptions {
  bool force = false;   // replace OUT and, without resume, OUT.partial
  bool resume = false;  // continue OUT.partial
};

// OUT.partial; "OUT/" and "OUT" are one folder.
std::filesystem::path partial_of(const std::filesystem::path& out);

// Throws Error where OUT or OUT.partial is MODEL, or a folder that MODEL lies in; where OUT is not
// empty (without force); where OUT.partial exists (without either).
void expect_usable_output(const std::filesystem::path& model, const std::filesystem::path& out,
                          const OutputOptions& options);

class OutputFolder {
 public:
  // IDENTITY (options, hashes of the inputs) is recorded, and a resumed folder must have the same.
  // Throws Error where OUT cannot be used, and where the recorded identity differs.
  OutputFolder(std::filesystem::path model, std::filesystem::path out, const Json& identity,
               int64_t shards, const OutputOptions& options);

  const std::filesystem::path& partial() const { return partial_; }

  // Whether an earlier, interrupted run has written shard INDEX.
  bool has_shard(int64_t index) const;
  // Durable; shards may come in any order.
  void write_shard(int64_t index, std::span<const TensorData> tensors,
                   const std::map<std::string, std::string>& metadata = {}) const;
  // The `__metadata__` of a shard already written.
  std::map<std::string, std::string> shard_metadata(int64_t index) const;

  void write_json(const std::string& name, const Json& json) const;
  // Copies MODEL's tokenizer and generation files.
  void copy_side_files() const;

  // Writes the index of the shards, flushes, and gives the folder its name.
  void commit();

 private:
  std::filesystem::path shard_path(int64_t index) const;

  std::filesystem::path model_;
  std::filesystem::path out_;
  std::filesystem::path partial_;
  int64_t shards_;
};

// Throws Error unless the file system of OUT (which need not exist yet) has room for BYTES. What
// lies in OUT.partial is part of them, or makes room when it is removed.
void expect_free_space(const std::filesystem::path& out, int64_t bytes);

// One hash of all that a model folder is computed from: config.json and every safetensors file.
std::string model_hash(const std::filesystem::path& model);

}  // namespace micromix
