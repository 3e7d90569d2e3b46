// The unquantized model run over the calibration tokens, a decoder layer at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "micromix/base/progress.h"
#include "micromix/checkpoint/model_weights.h"
#include "micromix/model/decoder_layer.h"

namespace micromix {

class CalibrationPass {
 public:
  // IDS [samples * length]; each sample is a context of its own. WEIGHTS must outlive it.
  CalibrationPass(const ModelWeights& weights, std::span<const int32_t> ids, int64_t length);

  // The layer that advance() runs next.
  int64_t next_layer() const { return next_; }

  // Runs all samples through the next layer, OBSERVER seeing each of its inputs a sample at a time,
  // and gives the layer's pages back. PROGRESS counts samples of all layers.
  void advance(const InputObserver& observer, const ProgressFunction& progress);

 private:
  const ModelWeights& weights_;
  int64_t length_;
  int64_t samples_;
  int64_t next_ = 0;
  std::unique_ptr<kernels::KeyValues> cache_;
  Workspace workspace_;
  std::unique_ptr<kernels::Buffer> hidden_;  // [samples * length, hidden_size]
};

}  // namespace micromix
