// Which tile of Y a block takes.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/divisor.h"

namespace micromix::kernels::cuda {

// Tiles of Y in the order in which blocks take them: groups of tiles along the weight by all along
// X, so that what blocks running together read fits the L2 cache.
struct TileOrder {
  int32_t column_tiles = 0, row_tiles = 0;
  Divisor group_tiles;            // of a whole group
  Divisor columns, last_columns;  // of a group, and of the last

  TileOrder() = default;
  TileOrder(int32_t column_tiles, int32_t row_tiles, int32_t group)
      : column_tiles(column_tiles),
        row_tiles(row_tiles),
        group_tiles(group * row_tiles),
        columns(group),
        last_columns(column_tiles % group == 0 ? group : column_tiles % group) {}

  MICROMIX_HOST_DEVICE int count() const { return column_tiles * row_tiles; }
};
struct Tile {
  int column, row;

  __device__ Tile(const TileOrder& order, int index) {
    const int group = index / order.group_tiles;
    const int first = group * order.columns.value;
    const int in_group = index - group * order.group_tiles.value;
    const bool last = first + order.columns.value > order.column_tiles;
    row = in_group / (last ? order.last_columns : order.columns);
    column = first + in_group - row * (last ? order.last_columns : order.columns).value;
  }
};

}  // namespace micromix::kernels::cuda
