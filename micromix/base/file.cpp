#include "micromix/base/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "micromix/base/error.h"

namespace micromix {
namespace {

[[noreturn]] void throw_system(const std::filesystem::path& path, const char* doing) {
  throw Error(fmt::format("{}: cannot {}: {}", path.string(), doing, std::strerror(errno)));
}

void sync_path(const std::filesystem::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags);
  if (descriptor < 0) throw_system(path, "open");
  const int result = ::fsync(descriptor);
  ::close(descriptor);
  if (result != 0) throw_system(path, "flush");
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  FileWriter writer(path);
  writer.write(content.data(), content.size());
  writer.commit();
}

void copy_file_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  const MappedFile source(from);
  FileWriter writer(to);
  writer.write(source.bytes().data(), source.bytes().size());
  writer.commit();
}

void sync_directory(const std::filesystem::path& path) {
  sync_path(path, O_RDONLY | O_DIRECTORY);
}

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  temporary_ += ".tmp";
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw_system(path_, "write");
}

FileWriter::~FileWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void FileWriter::write(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_system(path_, "write");
    }
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void FileWriter::commit() {
  if (::fsync(descriptor_) != 0) throw_system(path_, "flush");
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    ::unlink(temporary_.c_str());
    throw_system(path_, "write");
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  // Without O_NONBLOCK, opening a pipe waits for a writer.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw_system(path, "read");
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error(fmt::format("{}: cannot read: not a regular file", path.string()));
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {
    void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (map == MAP_FAILED) {
      ::close(descriptor);
      throw_system(path, "map");
    }
    data_ = static_cast<const std::byte*>(map);
  }
  ::close(descriptor);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(const std::byte* data, size_t bytes) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t first = static_cast<size_t>(data - data_);
  const size_t begin = (first + page - 1) / page * page;
  const size_t end = (first + bytes) / page * page;
  // The map is read-only and backed by the file, so dropping its pages loses nothing.
  if (end > begin) {
    ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
  }
}

std::string content_hash(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("xxh3:{:016x}{:016x}", hash.high64, hash.low64);
}

std::string file_hash(const std::filesystem::path& path) {
  const MappedFile file(path);
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  // In steps, releasing each, so that hashing a checkpoint does not make it resident.
  constexpr size_t kStep = size_t{64} << 20;
  const auto bytes = file.bytes();
  for (size_t offset = 0; offset < bytes.size(); offset += kStep) {
    const auto step = bytes.subspan(offset, std::min(kStep, bytes.size() - offset));
    XXH3_128bits_update(state, step.data(), step.size());
    file.release(step.data(), step.size());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  return fmt::format("xxh3:{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace micromix
