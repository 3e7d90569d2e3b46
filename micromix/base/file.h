// Files: whole reads, memory maps, durable writes, content hashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace micromix {

// The whole file. Throws Error naming the path where it cannot be read.
std::string read_file(const std::filesystem::path& path);

// Writes PATH through a temporary beside it, fsync and rename: afterwards PATH holds all of CONTENT
// or what it held before. Throws Error (a full disk, say).
void write_file(const std::filesystem::path& path, std::string_view content);

// Copies a file the way write_file writes.
void copy_file_durably(const std::filesystem::path& from, const std::filesystem::path& to);

// Flushes a directory's entries (after renames in it) to disk.
void sync_directory(const std::filesystem::path& path);

// A durable file under construction: bytes are appended to PATH.tmp; commit() does fsync and
// rename. Without commit() the temporary is removed.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  // Throws Error with the system's reason (No space left on device, …).
  void write(const void* data, size_t bytes);
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

// A read-only map of a whole file. Move-only.
class MappedFile {
 public:
  MappedFile() = default;
  // Throws Error where PATH is not a regular file that can be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  // Gives the pages wholly inside [DATA, DATA + BYTES) back to the system: they leave this
  // process's resident set and are read again if touched. DATA must lie in this map.
  void release(const std::byte* data, size_t bytes) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// XXH3-128 of some bytes, or of a whole file, as "xxh3:" and 32 hex digits; `xxhsum -H2` prints the
// same digits.
std::string content_hash(std::span<const std::byte> bytes);
std::string file_hash(const std::filesystem::path& path);

}  // namespace micromix
