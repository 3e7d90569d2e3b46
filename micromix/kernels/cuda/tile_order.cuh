// Which tile of Y a block takes.
#pragma once

#include <cstdint>

#include "micromix/kernels/cuda/host_device.h"

namespace micromix::kernels::cuda {

// Tiles of Y in the order in which blocks take them: GROUP tiles along the weight by all along X,
// so that what blocks running together read fits the L2 cache.
struct TileOrder {
  int32_t column_tiles, row_tiles;
  int32_t group;

  MICROMIX_HOST_DEVICE int count() const { return column_tiles * row_tiles; }
};
struct Tile {
  int column, row;

  Tile() = default;
  __device__ Tile(const TileOrder& order, int index) {
    const int group_tiles = order.group * order.row_tiles;
    const int first = index / group_tiles * order.group;
    const int group = min(order.group, order.column_tiles - first);
    column = first + index % group_tiles % group;
    row = index % group_tiles / group;
  }
};

}  // namespace micromix::kernels::cuda
