// A mixed weight repacked for the CPU kernels: as many bytes as the checkpoint's, in the order the
// kernels read them. Made once, when a weight is prepared.
#pragma once

#include <cstdint>
#include <vector>

#include "micromix/kernels/cpu/kernels.h"
#include "micromix/kernels/huge_buffer.h"

namespace micromix::kernels::cpu {

// Panels of 32 rows of W (output columns), the last filled up with zeros. Within a panel all codes
// of the first segment, block by block, then those of the next; scales, [block][32], apart.
//
// A block's 32 x 32 codes, in the order of an expanded integer block ([step][column][channel]: 16
// vectors of 64), lie so that shifts and masks of whole vectors bring them back:
//   E2M1: 8 vectors; vector 2 i in the low nibbles of the i-th, 2 i + 1 in the high ones
//   6 bits: for every 4 vectors z 3 packed ones: the low nibbles of z0 and z1, those of z2 and z3,
//     and the upper two bits of each, z0's lowest
//   E4M3: 16 vectors as they are
class PackedWeight {
 public:
  struct Segment {
    mx::Format format;
    int64_t blocks;
    int64_t code_offset;  // within a panel
  };

  // Threaded over panels. WEIGHT's bytes are not needed afterwards.
  explicit PackedWeight(const MixedWeight& weight);

  int64_t n() const { return n_; }
  int64_t k() const { return blocks_ * mx::kBlockSize; }
  int64_t panels() const { return (n_ + kPanel - 1) / kPanel; }
  int64_t bytes() const { return codes_.size() + scales_.size(); }
  const std::vector<Segment>& segments() const { return segments_; }
  const uint8_t* codes(int64_t panel, const Segment& segment) const {
    return codes_.data() + panel * panel_bytes_ + segment.code_offset;
  }
  // [k / 32][32], all segments.
  const uint8_t* scales(int64_t panel) const { return scales_.data() + panel * blocks_ * kPanel; }

 private:
  void pack_panel(const MixedWeight& weight, int64_t panel);

  int64_t n_;
  int64_t blocks_;
  int64_t panel_bytes_ = 0;
  std::vector<Segment> segments_;
  HugeBuffer codes_;
  HugeBuffer scales_;
};

// The codes of a packed block, [step][column][channel], one a byte: what every expansion starts
// from, in plain C++.
void unpack_block(mx::Format format, const uint8_t* packed, uint8_t* codes);

}  // namespace micromix::kernels::cpu
