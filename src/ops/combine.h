// Linear combinations of pictures, and what else samplers do with what a model predicts. All are f32 and not
// differentiable. Where some operands lie on the GPU and others do not, as noise from the CPU's generator, the
// others move there.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet::ops {

struct Term {
  float factor;
  Tensor x;  ///< none: the term counts nothing
};

/// Σ factor·x of up to 4 tensors of one shape; clipped: kept within −1..1.
Tensor combine(const std::vector<Term>& terms, bool clipped = false);

/// factors[2·s]·a + factors[2·s + 1]·b of each sample s. Where b (n, c, h, w) has fewer channels than a, a's
/// others stay.
Tensor combine_samples(const Tensor& a, const Tensor& b, const std::vector<float>& factors);

/// Of a prediction (2·n, c, h, w) for what is wanted, then for nothing: (n, c, h, w), in whose first `guided`
/// channels none + scale·(wanted − none), and in the others what is wanted.
Tensor guided(const Tensor& prediction, float scale, int64_t guided);

/// Channels first to first + count of x (n, c, h, w); x itself if these are all.
Tensor channels(const Tensor& x, int64_t first, int64_t count);

/// mean + e^(l/2)·noise, where v in −1..1 says how l lies between low and high.
Tensor add_learned_noise(const Tensor& mean, const Tensor& v, const Tensor& noise, float low, float high);

/// Tensors of one type and, but for the first dimension, one shape, one after the other along the first.
Tensor concat_rows(const std::vector<Tensor>& parts);

}  // namespace linnet::ops
