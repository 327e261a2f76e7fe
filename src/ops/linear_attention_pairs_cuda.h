// Linear attention of few tokens, by all pairs of them: q̂ᵢ(Σⱼ k̂ⱼᵀvⱼ) = Σⱼ(q̂ᵢ·k̂ⱼ)vⱼ. Where there are fewer
// tokens than some channels of a head, that is no more arithmetic, and nothing of a state has to be gathered,
// kept or read.
#pragma once

#include "ops/linear_attention_cuda.h"

namespace linnet::cuda::linear_attention {

/// What is computed: the answers to queries, or gradients of one of the three.
enum class PairsOf { answers, values, keys, queries };

/// With p_i = mean over j of w[j]·(x_i·a_j)·b_j and total = mean over j of w[j]·e[j]·b_j, where f is taken of x
/// and a (answers, values) or of b (keys, queries):
///   answers:  y = p/z away from 0, z = mean over j of x_i·a_j, and what y held if `add`
///   values:   y = p, and what y held if `add`
///   keys:     y = f'(under)·(p + total)
///   queries:  y = f'(under)·inverse·(p − along·total), along = inverse·(f(under)·p)
struct Pairs {
  ColumnView x, a, b;
  const float* w = nullptr;  ///< (states, tokens) as all that follow; null: ones
  const float* e = nullptr;  ///< null: ones
  ColumnView under{};
  const float* inverse = nullptr;  ///< of queries
  float* result = nullptr;         ///< of answers 1/z, of queries −along
  ColumnView y{};
  bool add = false;
};

/// Whether this card has what it takes, and pairs are the better way.
bool pairs_fit(const Shape& shape);
void multiply_pairs(const Shape& shape, PairsOf kind, const Pairs& step);

}  // namespace linnet::cuda::linear_attention
