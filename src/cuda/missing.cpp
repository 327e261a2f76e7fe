// Temporary: parts of the table that are not written yet.
#include "cuda/kernels.h"
namespace linnet::cuda {
#define W __attribute__((weak))
W void fill(ops::ArrangeKernels&) {}
W void fill(ops::ReduceKernels&) {}
W void fill(ops::NormKernels&) {}
W void fill(ops::SoftmaxKernels&) {}
W void fill(ops::LinearAttentionKernels&) {}
W void fill(ops::FocusedMapKernels&) {}
W void fill(ops::CompressKernels&) {}
W void fill(ops::OptimizerKernels&) {}
W void fill(ops::CombineKernels&) {}
W void fill(ops::LossKernels&) {}
}  // namespace linnet::cuda
