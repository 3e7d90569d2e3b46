#include "micromix/checkpoint/output_folder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <stdio.h>

#include "micromix/base/error.h"
#include "micromix/base/file.h"

namespace micromix {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIdentityFile = "micromix_run.json";
constexpr const char* kIndexFile = "model.safetensors.index.json";

fs::path without_slash(fs::path path) {
  path = path.lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

// Whether FOLDER is PATH or a folder above it.
bool holds(const fs::path& folder, const fs::path& path) {
  std::error_code none;  // what does not exist holds nothing
  fs::path above = fs::canonical(path);
  while (above.has_relative_path() && !fs::equivalent(folder, above, none)) {
    above = above.parent_path();
  }
  return fs::equivalent(folder, above, none);
}

bool is_empty_or_absent(const fs::path& path) {
  return !fs::exists(path) || (fs::is_directory(path) && fs::is_empty(path));
}

// Names the innermost field where a run's identity is not the one RECORDED. FIELD is its dotted
// path.
void expect_same(const fs::path& partial, const std::string& field, const Json& identity,
                 const Json& recorded) {
  if (identity == recorded) return;
  if (identity.is_object() && recorded.is_object()) {
    Json keys = identity;
    keys.update(recorded);
    for (const auto& [key, value] : keys.items()) {
      expect_same(partial, field.empty() ? key : field + "." + key, identity.value(key, Json()),
                  recorded.value(key, Json()));
    }
    return;
  }
  const auto shown = [](const Json& json) { return json.is_null() ? "nothing" : json.dump(); };
  throw_invalid(partial.string(), field, shown(identity),
                shown(recorded) + ", as in the interrupted run (--force alone starts again)");
}

void expect_same_identity(const fs::path& partial, const Json& identity) {
  const Json recorded = read_json(partial / kIdentityFile);
  JsonObject(recorded, (partial / kIdentityFile).string());  // throws where it is none
  expect_same(partial, "", identity, recorded);
}

}  // namespace

fs::path partial_of(const fs::path& out) {
  fs::path partial = without_slash(out);
  partial += ".partial";
  return partial;
}

void expect_usable_output(const fs::path& model, const fs::path& out,
                          const OutputOptions& options) {
  const fs::path partial = partial_of(out);
  for (const fs::path& replaced : {out, partial}) {
    if (holds(replaced, model)) {
      throw Error(fmt::format("{}: holds the model that is read, {}, and would replace it",
                              replaced.string(), model.string()));
    }
  }
  if (!is_empty_or_absent(out) && !options.force) {
    throw Error(fmt::format("{}: exists and is not empty (--force replaces it)", out.string()));
  }
  if (fs::exists(partial) && !options.force && !options.resume) {
    throw Error(
        fmt::format("{}: an interrupted run is there (--resume continues it, --force starts again)",
                    partial.string()));
  }
}

OutputFolder::OutputFolder(fs::path model, fs::path out, const Json& identity, int64_t shards,
                           const OutputOptions& options)
    : model_(std::move(model)),
      out_(without_slash(std::move(out))),
      partial_(partial_of(out_)),
      shards_(shards) {
  expect_usable_output(model_, out_, options);
  if (fs::exists(partial_ / kIdentityFile) && options.resume) {
    expect_same_identity(partial_, identity);
    return;
  }
  fs::remove_all(partial_);
  std::error_code error;
  fs::create_directories(partial_, error);
  if (error) throw Error(fmt::format("{}: cannot create: {}", partial_.string(), error.message()));
  write_json(kIdentityFile, identity);
}

fs::path OutputFolder::shard_path(int64_t index) const {
  return partial_ / fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, shards_);
}

bool OutputFolder::has_shard(int64_t index) const {
  return fs::exists(shard_path(index));
}

void OutputFolder::write_shard(int64_t index, std::span<const TensorData> tensors,
                               const std::map<std::string, std::string>& metadata) const {
  std::map<std::string, std::string> all = metadata;
  all["format"] = "pt";  // what Hugging Face's loaders ask for
  write_safetensors(shard_path(index), tensors, all);
}

std::map<std::string, std::string> OutputFolder::shard_metadata(int64_t index) const {
  return SafetensorsFile(shard_path(index)).metadata();
}

void OutputFolder::write_json(const std::string& name, const Json& json) const {
  write_file(partial_ / name, json.dump(2) + "\n");
}

void OutputFolder::copy_side_files() const {
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
        "chat_template.json", "generation_config.json", "LICENSE"}) {
    if (fs::exists(model_ / name)) copy_file_durably(model_ / name, partial_ / name);
  }
}

void OutputFolder::commit() {
  Json map = Json::object();
  int64_t bytes = 0;
  for (int64_t i = 0; i < shards_; ++i) {
    const SafetensorsFile shard(shard_path(i));
    for (const auto& [name, tensor] : shard.tensors()) {
      map[name] = shard_path(i).filename().string();
      bytes += static_cast<int64_t>(tensor.bytes.size());
    }
  }
  write_json(kIndexFile, {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}});
  sync_directory(partial_);
  // Until here the folder can be resumed; the run's record is not part of the model.
  fs::remove(partial_ / kIdentityFile);
  sync_directory(partial_);

  if (is_empty_or_absent(out_)) {
    fs::remove(out_);
    fs::rename(partial_, out_);
  } else {
    if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, out_.c_str(), RENAME_EXCHANGE) != 0) {
      throw Error(fmt::format("{}: cannot replace: {}", out_.string(), std::strerror(errno)));
    }
    fs::remove_all(partial_);
  }
  sync_directory(fs::absolute(out_).parent_path());
}

void expect_free_space(const fs::path& out, int64_t bytes) {
  const fs::path partial = partial_of(out);
  if (fs::exists(partial)) {
    for (const auto& entry : fs::directory_iterator(partial)) {
      if (entry.is_regular_file()) bytes -= static_cast<int64_t>(entry.file_size());
    }
  }
  fs::path existing = fs::absolute(out);
  while (!fs::exists(existing)) existing = existing.parent_path();
  const int64_t available = static_cast<int64_t>(fs::space(existing).available);
  if (available < bytes) {
    throw Error(fmt::format("{}: {:.2f} GB free on this disk, {:.2f} GB needed", out.string(),
                            static_cast<double>(available) * 1e-9,
                            static_cast<double>(bytes) * 1e-9));
  }
}

std::string model_hash(const fs::path& model) {
  std::string all = file_hash(model / "config.json");
  for (const fs::path& file : TensorStore(model).files()) all += file_hash(file);
  return content_hash(std::as_bytes(std::span(all)));
}

}  // namespace micromix
