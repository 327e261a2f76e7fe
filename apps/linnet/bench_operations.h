// The operations that a diffusion transformer spends its time in, at a model's shapes, ready to be timed one by
// one: what each computes, the least it must read and write, and its backward pass.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench_timing.h"
#include "models/dit.h"

namespace linnet::app {

struct Operation {
  std::string name, shape;
  double calls = 1;                      ///< in one forward pass of the model
  double flops = 0, backward_flops = 0;  ///< in products and sums over tokens, one call
  bool in_products = false;              ///< whether those count as the model's GEMM FLOPs
  double bytes = 0, backward_bytes = 0;  ///< least memory traffic of one call
  std::function<Tensor()> forward = {};
  std::function<void()> backward = {};  ///< where the tape does not do it
  std::vector<Tensor> leaves = {};      ///< inputs whose gradients are wanted
};

/// The operations of all blocks of a model on a batch, those that take noticeable time; products in dtype.
std::vector<Operation> block_operations(const DiTConfig& config, int64_t batch, DType dtype);
/// Operations that a model's blocks do not show on their own: softmax beside linear attention, the MLP as a
/// whole, GELU, SiLU, casts.
std::vector<Operation> further_operations(const DiTConfig& config, int64_t batch, DType dtype);
/// One optimiser step of `parameters` parameters.
Operation optimizer_operation(int64_t parameters);

/// Nothing recorded, weights packed: as in sampling.
Work inference_work(const Operation& operation, double least);
/// Forward as in training: on a tape, weights converted at each call.
Work recorded_work(const Operation& operation, double least);
/// The backward pass alone.
Work backward_work(const Operation& operation, double least);

}  // namespace linnet::app
