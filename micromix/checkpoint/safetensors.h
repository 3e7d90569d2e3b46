// safetensors files, memory-mapped for reading and streamed for writing.
//
// Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
// then the data. https://github.com/huggingface/safetensors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "micromix/base/file.h"

namespace micromix {

enum class DType : uint8_t { kBF16, kF16, kF32, kU8, kI32, kI64, kOther };

// "BF16", "F32", …; "other" for a valid dtype that this project never reads.
std::string_view name(DType dtype);
// Bytes an element takes; not for kOther.
int64_t size_of(DType dtype);

// One tensor of a mapped file. Valid as long as the SafetensorsFile it came from.
struct TensorView {
  std::string name;
  DType dtype = DType::kOther;
  std::vector<int64_t> shape;  // row-major
  std::span<const std::byte> bytes;
  const class SafetensorsFile* file = nullptr;

  // Throws Error naming file and tensor unless it has exactly this dtype and shape.
  void expect(DType dtype, std::span<const int64_t> shape) const;
  // A copy of the elements as T, which must have the dtype's size. A copy because the format does
  // not align data: whoever reads BYTES in place loads elements with memcpy.
  template <typename T>
  std::vector<T> values() const {
    std::vector<T> out(bytes.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  // The data of a U8 tensor, in place.
  std::span<const uint8_t> octets() const {
    return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  }
  // "[2, 48]"
  std::string shape_text() const;
  // Gives the tensor's pages back to the system (see MappedFile::release).
  void release() const;
};

// A mapped safetensors file; every header field was checked: lengths, JSON, dtypes, shapes whose
// product overflows, ranges outside the file, ranges that overlap or leave gaps, duplicate names.
class SafetensorsFile {
 public:
  // Throws Error naming PATH and the tensor.
  explicit SafetensorsFile(const std::filesystem::path& path);
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // By name.
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Throws Error where there is no such tensor.
  const TensorView& at(const std::string& name) const;
  void release(std::span<const std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  MappedFile map_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// A tensor to be written; the bytes are only looked at by write_safetensors.
struct TensorData {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  // Where BYTES are those of a mapped tensor: its pages are released once they are written.
  const TensorView* source = nullptr;
};

// Writes PATH durably (see FileWriter), tensors in the given order, data aligned to 64 bytes as far
// as the format allows (the header is padded; tensors lie without gaps, so order them by falling
// element size to keep them aligned; U8 tensors last). Throws Error, e.g. on a full disk.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorData> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// The tensors of a model folder: model.safetensors, or the shards named by
// model.safetensors.index.json (checked: missing shards, names with "/" or "..", an index that
// disagrees with the shards, a tensor in two shards).
class TensorStore {
 public:
  // Throws Error.
  explicit TensorStore(const std::filesystem::path& model);

  // null where there is none.
  const TensorView* find(const std::string& name) const;
  // Throws Error where there is none.
  const TensorView& at(const std::string& name) const;
  // Sorted by name.
  const std::map<std::string, const TensorView*>& tensors() const { return tensors_; }
  // The files, in index order.
  std::vector<std::filesystem::path> files() const;
  const std::filesystem::path& model() const { return model_; }

 private:
  std::filesystem::path model_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const TensorView*> tensors_;
};

}  // namespace micromix
