// Every kernel file fills its part of the table (ops/gpu_kernels.h).
#pragma once

#include "ops/gpu_kernels.h"

namespace linnet::cuda {

void fill(ops::ActivationKernels& table);
void fill(ops::ArrangeKernels& table);
void fill(ops::ReduceKernels& table);
void fill(ops::NormKernels& table);
void fill(ops::SoftmaxKernels& table);
void fill(ops::LinearAttentionKernels& table);
void fill(ops::FocusedMapKernels& table);
void fill(ops::CompressKernels& table);
void fill(ops::ProductKernels& table);
void fill(ops::PictureKernels& table);
void fill(ops::OptimizerKernels& table);
void fill(ops::CombineKernels& table);
void fill(ops::LossKernels& table);
void fill(ops::CrossEntropyKernels& table);

/// The kernels that tensors themselves need (core/gpu.h).
void fill_tensor_kernels(GpuApi& api);

}  // namespace linnet::cuda
