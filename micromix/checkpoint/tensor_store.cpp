#include <set>
#include <system_error>

#include "micromix/base/error.h"
#include "micromix/base/json.h"
#include "micromix/checkpoint/safetensors.h"

namespace micromix {
namespace {

// The `weight_map` of an index: tensor to shard. Shards must be plain file names, so that an index
// cannot point outside its folder.
std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const Json json = read_json(path);
  const JsonObject map = JsonObject(json, path.string()).object("weight_map");
  std::map<std::string, std::string> shards;
  for (const auto& item : map.json().items()) {
    const std::string shard = map.string(item.key());
    if (shard.empty() || shard.front() == '.' || shard.find_first_of("/\\") != std::string::npos ||
        shard.find('\0') != std::string::npos) {
      map.fail(item.key(), "shard '" + shard + "'", "a file name in the model's folder");
    }
    shards[item.key()] = shard;
  }
  if (shards.empty()) throw_invalid(path.string(), "weight_map", "no tensors", "some");
  return shards;
}

// A folder that cannot be searched has no such file either.
bool file_exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

TensorStore::TensorStore(const std::filesystem::path& model) : model_(model) {
  const std::filesystem::path single = model / "model.safetensors";
  const std::filesystem::path index = model / "model.safetensors.index.json";
  if (file_exists(single)) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    for (const auto& [name, tensor] : files_.back()->tensors()) tensors_[name] = &tensor;
    return;
  }
  if (!file_exists(index)) {
    throw_invalid(model.string(), "weights", "neither model.safetensors nor its index.json",
                  "a folder with safetensors weights");
  }
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!file_exists(model / shard)) {
      throw_invalid(index.string(), "weight_map", "shard " + shard + ", which is missing",
                    "shards that are in the folder");
    }
  }
  for (const std::string& shard : shards) {
    files_.push_back(std::make_unique<SafetensorsFile>(model / shard));
    for (const auto& [name, tensor] : files_.back()->tensors()) {
      const auto it = shard_of.find(name);
      if (it == shard_of.end() || it->second != shard) {
        throw_invalid((model / shard).string(), name, "a tensor that the index does not place here",
                      it == shard_of.end() ? "only tensors of the index" : "it in " + it->second);
      }
      tensors_[name] = &tensor;
    }
  }
  for (const auto& [name, shard] : shard_of) {
    if (find(name) == nullptr) {
      throw_invalid((model / shard).string(), name, "no such tensor", "one, as the index says");
    }
  }
}

const TensorView* TensorStore::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second;
}

const TensorView& TensorStore::at(const std::string& name) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) throw_invalid(model_.string(), name, "no such tensor", "one");
  return *tensor;
}

std::vector<std::filesystem::path> TensorStore::files() const {
  std::vector<std::filesystem::path> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

}  // namespace micromix
