#include "micromix/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <optional>
#include <utility>

#include "micromix/base/error.h"
#include "micromix/base/json.h"

namespace micromix {
namespace {

// The format's own limit on its header.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct DTypeName {
  std::string_view name;
  int64_t bytes;
  DType dtype;
};

constexpr std::array kDTypeNames = {
    DTypeName{"BF16", 2, DType::kBF16},     DTypeName{"F16", 2, DType::kF16},
    DTypeName{"F32", 4, DType::kF32},       DTypeName{"U8", 1, DType::kU8},
    DTypeName{"I32", 4, DType::kI32},       DTypeName{"I64", 8, DType::kI64},
    DTypeName{"BOOL", 1, DType::kOther},    DTypeName{"I8", 1, DType::kOther},
    DTypeName{"F8_E5M2", 1, DType::kOther}, DTypeName{"F8_E4M3", 1, DType::kOther},
    DTypeName{"F8_E8M0", 1, DType::kOther}, DTypeName{"I16", 2, DType::kOther},
    DTypeName{"U16", 2, DType::kOther},     DTypeName{"U32", 4, DType::kOther},
    DTypeName{"F64", 8, DType::kOther},     DTypeName{"U64", 8, DType::kOther},
};

const DTypeName& name_entry(DType dtype) {
  assert(dtype != DType::kOther);
  return *std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                       [&](const DTypeName& entry) { return entry.dtype == dtype; });
}

// The bytes SHAPE takes; none where they are 2^63 or more.
std::optional<int64_t> byte_size(std::span<const int64_t> shape, int64_t element) {
  int64_t bytes = element;
  for (int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

std::string shape_to_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string_view header_text(std::span<const std::byte> bytes, const std::string& file) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length) {
    throw_invalid(file, "header length", fmt::format("a file of {} bytes", bytes.size()),
                  "at least 8 bytes");
  }
  std::memcpy(&length, bytes.data(), sizeof length);
  const uint64_t rest = bytes.size() - sizeof length;
  const std::string found = fmt::format("{}", length);
  if (length == 0) throw_invalid(file, "header length", found, "at least 2, for a JSON object");
  if (length > rest) {
    throw_invalid(file, "header length", found,
                  fmt::format("at most the {} bytes that follow", rest));
  }
  if (length > kMaxHeaderBytes) {
    throw_invalid(file, "header length", found,
                  fmt::format("at most {}, the format's limit", kMaxHeaderBytes));
  }
  return {reinterpret_cast<const char*>(bytes.data()) + sizeof length, length};
}

// An array of whole numbers that are not negative.
std::vector<int64_t> sizes_at(const JsonObject& entry, const std::string& key) {
  const Json& values = entry.at(key);
  if (!values.is_array()) entry.fail(key, describe(values), "an array of sizes");
  std::vector<int64_t> sizes;
  for (const Json& value : values) {
    const bool valid =
        value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    if (!valid) entry.fail(key, describe(value), "a size from 0 to 2^63 - 1");
    sizes.push_back(value.get<int64_t>());
  }
  return sizes;
}

// One entry of the header, its range and size checked against each other and DATA.
TensorView parse_tensor(const std::string& name, const JsonObject& entry,
                        std::span<const std::byte> data) {
  TensorView tensor;
  tensor.name = name;
  const std::string dtype = entry.string("dtype");
  const auto known =
      std::find_if(kDTypeNames.begin(), kDTypeNames.end(),
                   [&](const DTypeName& candidate) { return candidate.name == dtype; });
  if (known == kDTypeNames.end()) entry.fail("dtype", "'" + dtype + "'", "a safetensors dtype");
  tensor.dtype = known->dtype;
  tensor.shape = sizes_at(entry, "shape");
  const std::optional<int64_t> bytes = byte_size(tensor.shape, known->bytes);
  if (!bytes) entry.fail("shape", tensor.shape_text(), "fewer than 2^63 bytes");
  const std::vector<int64_t> offsets = sizes_at(entry, "data_offsets");
  const std::string found = shape_to_text(offsets);
  if (offsets.size() != 2) entry.fail("data_offsets", found, "[begin, end]");
  if (offsets[0] > offsets[1] || offsets[1] > static_cast<int64_t>(data.size())) {
    entry.fail("data_offsets", found,
               fmt::format("a range within the file's {} bytes of data", data.size()));
  }
  if (offsets[1] - offsets[0] != *bytes) {
    entry.fail("data_offsets", found,
               fmt::format("{} bytes for {} {}", *bytes, dtype, tensor.shape_text()));
  }
  tensor.bytes = data.subspan(offsets[0], *bytes);
  return tensor;
}

// Tensors must tile the data: no overlap, no gap, nothing after the last.
void expect_tiled(const std::map<std::string, TensorView>& tensors, std::span<const std::byte> data,
                  const std::string& file) {
  std::vector<const TensorView*> order;
  for (const auto& [name, tensor] : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::pair(a->bytes.data(), a->bytes.size()) <
           std::pair(b->bytes.data(), b->bytes.size());
  });
  int64_t end = 0;
  for (const TensorView* tensor : order) {
    const int64_t begin = tensor->bytes.data() - data.data();
    if (begin != end) {
      throw_invalid(file, tensor->name + ".data_offsets", fmt::format("data from byte {}", begin),
                    fmt::format("from byte {}, where the tensor before it ends", end));
    }
    end += static_cast<int64_t>(tensor->bytes.size());
  }
  if (end != static_cast<int64_t>(data.size())) {
    throw_invalid(file, "data", fmt::format("{} bytes", data.size()),
                  fmt::format("{} bytes, what the header describes", end));
  }
}

}  // namespace

std::string_view name(DType dtype) {
  return dtype == DType::kOther ? "other" : name_entry(dtype).name;
}

int64_t size_of(DType dtype) {
  return name_entry(dtype).bytes;
}

void TensorView::expect(DType expected_dtype, std::span<const int64_t> expected_shape) const {
  if (dtype != expected_dtype || !std::ranges::equal(shape, expected_shape)) {
    throw_invalid(
        file->path().string(), name, fmt::format("{} {}", micromix::name(dtype), shape_text()),
        fmt::format("{} {}", micromix::name(expected_dtype), shape_to_text(expected_shape)));
  }
}

std::string TensorView::shape_text() const {
  return shape_to_text(shape);
}

void TensorView::release() const {
  file->release(bytes);
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), map_(path) {
  const std::string file = path.string();
  const std::string_view text = header_text(map_.bytes(), file);
  const auto data = map_.bytes().subspan(sizeof(uint64_t) + text.size());
  const Json json = parse_json(text, file);
  const JsonObject header(json, file);
  for (const auto& [key, value] : json.items()) {
    const JsonObject entry = header.object(key);
    if (key == "__metadata__") {
      for (const auto& item : value.items()) metadata_[item.key()] = entry.string(item.key());
      continue;
    }
    TensorView tensor = parse_tensor(key, entry, data);
    tensor.file = this;
    tensors_[key] = std::move(tensor);
  }
  expect_tiled(tensors_, data, file);
}

const TensorView& SafetensorsFile::at(const std::string& tensor) const {
  const auto it = tensors_.find(tensor);
  if (it == tensors_.end()) throw_invalid(path_.string(), tensor, "no such tensor", "one");
  return it->second;
}

void SafetensorsFile::release(std::span<const std::byte> bytes) const {
  map_.release(bytes.data(), bytes.size());
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorData> tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const TensorData& tensor : tensors) {
    const int64_t end = offset + static_cast<int64_t>(tensor.bytes.size());
    assert(byte_size(tensor.shape, size_of(tensor.dtype)) == end - offset);
    assert(!header.contains(tensor.name));
    header[tensor.name] = {
        {"dtype", name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  constexpr size_t kAlignment = 64;
  const size_t unpadded = sizeof(uint64_t) + text.size();
  text.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');

  FileWriter writer(path);
  const uint64_t length = text.size();
  writer.write(&length, sizeof length);
  writer.write(text.data(), text.size());
  for (const TensorData& tensor : tensors) {
    writer.write(tensor.bytes.data(), tensor.bytes.size());
    if (tensor.source != nullptr) tensor.source->release();
  }
  writer.commit();
}

}  // namespace micromix
