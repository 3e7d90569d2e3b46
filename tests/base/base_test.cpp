#include <csignal>

#include <sys/resource.h>

#include "micromix/base/file.h"
#include "micromix/base/json.h"
#include "tests/testing.h"

namespace micromix {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

TEST(Json, RefusesWhatItMust) {
  EXPECT_THAT(testing::error_of([] { parse_json("{\"a\": {\"b\": 1, \"b\": 2}}", "f"); }),
              HasSubstr("f: b: found the key twice"));
  EXPECT_THAT(testing::error_of([] { parse_json(std::string(1000000, '['), "f"); }),
              HasSubstr("nesting deeper than 64"));
  EXPECT_THAT(testing::error_of([] { parse_json("{\"a\": \"\xFF\"}", "f"); }),
              HasSubstr("f: JSON"));
  EXPECT_THAT(testing::error_of([] { parse_json("", "f"); }), HasSubstr("f: JSON"));
  EXPECT_EQ(parse_json("{\"a\": {\"x\": 1}, \"b\": {\"x\": 1}}", "f").size(), 2u);
}

TEST(JsonObject, NamesFileAndField) {
  const Json json =
      parse_json(R"({"a": {"n": 5, "s": "x", "f": 1.5, "big": 1e40, "null": null}})", "f");
  const JsonObject a = JsonObject(json, "f").object("a");
  EXPECT_EQ(a.integer("n", 0, 9), 5);
  EXPECT_EQ(a.string("s"), "x");
  EXPECT_EQ(a.number("f"), 1.5);
  EXPECT_FALSE(a.has("null"));
  EXPECT_EQ(a.integer_or("null", 3, 0, 9), 3);
  EXPECT_THAT(testing::error_of([&] { a.integer("n", 6, 9); }),
              HasSubstr("f: a.n: found 5, expected a whole number from 6 to 9"));
  EXPECT_THAT(testing::error_of([&] { a.integer("f", 0, 9); }), HasSubstr("f: a.f: found 1.5"));
  EXPECT_THAT(testing::error_of([&] { a.integer("big", 0, 9); }),
              HasSubstr("f: a.big: found 1e+40"));
  EXPECT_THAT(testing::error_of([&] { a.string("n"); }),
              HasSubstr("f: a.n: found 5, expected a string"));
  EXPECT_THAT(testing::error_of([&] { a.object("s"); }), HasSubstr("expected a JSON object"));
  EXPECT_THAT(testing::error_of([&] { a.at("none"); }), HasSubstr("f: a.none: found nothing"));
}

TEST(File, WritesWholeOrNotAtAll) {
  const testing::TemporaryFolder folder;
  write_file(folder / "a", "first");
  EXPECT_EQ(read_file(folder / "a"), "first");

  // A limit on the size of files stands for a full disk.
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit limit = before;
  limit.rlim_cur = 1000;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const std::string error =
      testing::error_of([&] { write_file(folder / "a", std::string(5000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(error, HasSubstr("/a: cannot write: File too large"));
  EXPECT_EQ(read_file(folder / "a"), "first");
  EXPECT_FALSE(fs::exists(folder / "a.tmp"));
}

TEST(File, WhatCannotBeReadIsNamed) {
  const testing::TemporaryFolder folder;
  EXPECT_THAT(testing::error_of([&] { read_file(folder / "none"); }),
              HasSubstr("none: cannot read: No such file"));
  EXPECT_THAT(testing::error_of([&] { read_file(folder.path()); }),
              HasSubstr("not a regular file"));
  write_file(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty"), "");
}

TEST(Hash, IsXxh3OfTheContent) {
  const testing::TemporaryFolder folder;
  write_file(folder / "empty", "");
  // The published XXH3-128 of no bytes.
  EXPECT_EQ(file_hash(folder / "empty"), "xxh3:99aa06d3014798d86001c324468d497f");
  const std::string text = "micromix";
  write_file(folder / "text", text);
  EXPECT_EQ(file_hash(folder / "text"), content_hash(std::as_bytes(std::span(text))));
}

}  // namespace
}  // namespace micromix
