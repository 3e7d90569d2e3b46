// Which tile of Y a block takes, and where a tile's chunks lie in the weight.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/packed_layout.h"

namespace micromix::kernels::cuda {

// Tiles of Y and the parts of K, in the order in which blocks take them: GROUP tiles along the
// weight by all along X, so that what blocks running together read fits the L2 cache.
struct TileGrid {
  int32_t column_tiles;
  int32_t row_tiles;
  int32_t group;
  int32_t slot_bytes;  // of the largest record

  __host__ __device__ int count() const { return column_tiles * row_tiles; }
};

// Where the TILE-th of them is.
struct TilePosition {
  int column, row;

  TilePosition() = default;
  __device__ TilePosition(const TileGrid& tiles, int tile) {
    const int group_tiles = tiles.group * tiles.row_tiles;
    const int group_first = tile / group_tiles * tiles.group;
    const int group = min(tiles.group, tiles.column_tiles - group_first);
    column = group_first + tile % group_tiles % group;
    row = tile % group_tiles / group;
  }
};

// Goes through chunks, knowing the segment of each.
struct SegmentCursor {
  int segment = 0;
  int end;  // of its chunks
  mx::Format format;

  __device__ SegmentCursor(const WeightView& weight, int chunk) {
    enter(weight);
    move_to(weight, chunk);
  }
  __device__ void move_to(const WeightView& weight, int chunk) {
    while (chunk >= end) {
      ++segment;
      enter(weight);
    }
  }

 private:
  __device__ void enter(const WeightView& weight) {
    format = weight.segments[segment].format;
    end = weight.segments[segment].first_chunk + weight.segments[segment].chunks;
  }
};

}  // namespace micromix::kernels::cuda
