// Class-conditional generation: from classes and seeds to pictures.
#pragma once

#include "models/dit.h"
#include "pipeline/sampling.h"

namespace linnet {

/// One sample for each class y[i] and seed, as sample() draws them. Returns (n, c, h, w).
Tensor generate(const DiT& model, const std::vector<int64_t>& classes, const std::vector<uint64_t>& seeds,
                const GenerateOptions& options, const Tensor& start_noise = {});

}  // namespace linnet
