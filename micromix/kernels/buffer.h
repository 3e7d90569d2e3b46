// Rows of numbers where a backend computes: in its memory, in its form.
#pragma once

#include <cassert>
#include <cstdint>

namespace micromix::kernels {

// What a buffer holds. Backends on the host keep both as FP32; one on a GPU keeps outputs as BF16.
enum class BufferType : uint8_t {
  kFloat,   // FP32: hidden states, angles, logits
  kOutput,  // what linears and attention write and read
};

// A matrix [rows, width], made by Backend::make_buffer. Keeps its memory, and grows to the largest
// size asked for. For one thread at a time.
class Buffer {
 public:
  virtual ~Buffer() = default;

  int64_t rows() const { return rows_; }
  int64_t width() const { return width_; }

  // Makes it [rows, width] of any values.
  void resize(int64_t rows, int64_t width) {
    reserve(rows * width);
    rows_ = rows;
    width_ = width;
  }

 private:
  // Room for COUNT values.
  virtual void reserve(int64_t count) = 0;

  int64_t rows_ = 0;
  int64_t width_ = 0;
};

// COUNT rows of a buffer from row FIRST.
struct Rows {
  Rows(Buffer& of, int64_t from, int64_t number) : buffer(&of), first(from), count(number) {
    assert(first >= 0 && first + count <= of.rows());
  }
  Rows(Buffer& all) : Rows(all, 0, all.rows()) {}  // NOLINT: a buffer is all its rows

  Buffer* buffer;
  int64_t first;
  int64_t count;
};

}  // namespace micromix::kernels
