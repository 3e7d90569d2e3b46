#include "micromix/checkpoint/safetensors.h"

#include <cstring>

#include "tests/testing.h"

namespace micromix {
namespace {

using ::testing::HasSubstr;

// A file with this header and so many bytes of data.
std::string file_bytes(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data, '\0');
}

// Padded, as writers do, so that data starts at a multiple of 8.
std::string padded(std::string header) {
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

std::string error_of_file(const std::string& bytes) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "x.safetensors", bytes);
  return testing::error_of([&] { SafetensorsFile file(folder / "x.safetensors"); });
}

TEST(Safetensors, RoundTrip) {
  const testing::TemporaryFolder folder;
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> codes = {7, 8, 9};
  const std::vector<TensorData> tensors = {
      {"weights", DType::kF32, {2, 3}, std::as_bytes(std::span(floats))},
      {"codes", DType::kU8, {3, 1}, std::as_bytes(std::span(codes))},
      {"nothing", DType::kU8, {0, 4}, {}}};
  write_safetensors(folder / "x", tensors, {{"format", "pt"}});
  const SafetensorsFile file(folder / "x");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.at("weights").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(std::ranges::equal(file.at("weights").values<float>(), floats));
  EXPECT_TRUE(std::ranges::equal(file.at("codes").octets(), codes));
  file.at("weights").release();
  EXPECT_EQ(file.at("weights").values<float>()[5], 6.0f);  // read again from the file
  EXPECT_THAT(testing::error_of([&] { file.at("other"); }),
              HasSubstr("other: found no such tensor"));
  const std::vector<int64_t> shape = {3, 2};
  EXPECT_THAT(testing::error_of([&] { file.at("weights").expect(DType::kF32, shape); }),
              HasSubstr("weights: found F32 [2, 3], expected F32 [3, 2]"));
}

TEST(Safetensors, MalformedHeaders) {
  struct Case {
    std::string header;
    size_t data;
    std::string expected;
  };
  const auto tensor = [](const std::string& fields) { return "{\"w\": {" + fields + "}}"; };
  const std::string shape = "\"shape\": [2], ";
  const std::string f32 = "\"dtype\": \"F32\", ";
  const std::vector<Case> cases = {
      {"not json", 0, "JSON"},
      {"[]", 0, "root: found an array"},
      {std::string(200, '['), 0, "nesting deeper than 64"},
      {"{\"w\": 1}", 0, "w: found 1, expected a JSON object"},
      {"{\"w\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [0, 1]}, "
       "\"w\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [0, 1]}}",
       1, "w: found the key twice"},
      {tensor(shape + "\"data_offsets\": [0, 8]"), 8, "w.dtype: found nothing"},
      {tensor(f32 + "\"data_offsets\": [0, 8]"), 8, "w.shape: found nothing"},
      {tensor("\"dtype\": \"F32\", \"shape\": [2]"), 8, "w.data_offsets: found nothing"},
      {tensor("\"dtype\": \"F77\", " + shape + "\"data_offsets\": [0, 8]"), 8,
       "w.dtype: found 'F77'"},
      {tensor("\"dtype\": 4, " + shape + "\"data_offsets\": [0, 8]"), 8, "w.dtype: found 4"},
      {tensor(f32 + "\"shape\": [-2], \"data_offsets\": [0, 8]"), 8, "w.shape: found -2"},
      {tensor(f32 + "\"shape\": [2.5], \"data_offsets\": [0, 8]"), 8, "w.shape: found 2.5"},
      {tensor(f32 + "\"shape\": 2, \"data_offsets\": [0, 8]"), 8, "w.shape: found 2"},
      {tensor(f32 + "\"shape\": [4294967296, 4294967296], \"data_offsets\": [0, 8]"), 8,
       "w.shape: found [4294967296, 4294967296], expected fewer than 2^63 bytes"},
      {tensor(f32 + shape + "\"data_offsets\": [8, 0]"), 8, "w.data_offsets: found [8, 0]"},
      {tensor(f32 + shape + "\"data_offsets\": [0, 9]"), 8, "w.data_offsets: found [0, 9]"},
      {tensor(f32 + shape + "\"data_offsets\": [0, 4]"), 8, "expected 8 bytes for F32 [2]"},
      {tensor(f32 + shape + "\"data_offsets\": [0, 8, 8]"), 8, "expected [begin, end]"},
      {tensor(f32 + shape + "\"data_offsets\": [0, 18446744073709551615]"), 8, "2^63 - 1"},
      {tensor(f32 + shape + "\"data_offsets\": [0, 8]"), 9, "data: found 9 bytes, expected 8"},
      {tensor(f32 + shape + "\"data_offsets\": [4, 12]"), 12,
       "found data from byte 4, expected from byte 0"},
      {"{\"a\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [0, 4]}, "
       "\"b\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [2, 6]}}",
       6, "b.data_offsets: found data from byte 2, expected from byte 4"},
      {"{\"__metadata__\": {\"a\": 1}}", 0, "__metadata__.a: found 1, expected a string"},
      {"{\"__metadata__\": []}", 0, "__metadata__: found an array"},
  };
  for (const Case& test : cases) {
    const std::string error = error_of_file(file_bytes(padded(test.header), test.data));
    EXPECT_THAT(error, HasSubstr("x.safetensors: "));
    EXPECT_THAT(error, HasSubstr(test.expected)) << test.header;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
}

TEST(Safetensors, HeaderLengths) {
  EXPECT_THAT(error_of_file("1234567"), HasSubstr("a file of 7 bytes"));
  EXPECT_THAT(error_of_file(std::string(8, '\0')), HasSubstr("header length: found 0"));
  EXPECT_THAT(error_of_file(std::string(16, '\xFF')),
              HasSubstr("header length: found 18446744073709551615"));
  EXPECT_THAT(error_of_file(file_bytes("{}", 0).substr(0, 9)), HasSubstr("header length: found 2"));
}

TEST(TensorStore, TensorInTwoShardsIsRefused) {
  const testing::TemporaryFolder folder;
  const std::vector<uint8_t> bytes = {1};
  const std::vector<TensorData> tensors = {{"w", DType::kU8, {1}, std::as_bytes(std::span(bytes))}};
  write_safetensors(folder / "a.safetensors", tensors);
  std::vector<TensorData> both = tensors;
  both.push_back({"v", DType::kU8, {1}, std::as_bytes(std::span(bytes))});
  write_safetensors(folder / "b.safetensors", both);
  testing::write_text(folder / "model.safetensors.index.json",
                      R"({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}})");
  EXPECT_THAT(
      testing::error_of([&] { TensorStore store(folder.path()); }),
      ::testing::AllOf(HasSubstr("b.safetensors: w"), HasSubstr("expected it in a.safetensors")));
}

}  // namespace
}  // namespace micromix
