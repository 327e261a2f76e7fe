// A row of the table of operations: the same operation on the CPU, in f32, and on the GPU, in every type that
// it has there, forward and backward. There is a GPU if LINNET_CUDA_LIBRARY names the library and it finds one;
// tests name the one whose kernels run on the CPU (src/cuda/emulation).
#pragma once

#include "ops/support.h"

namespace linnet::ops::test {

inline const Device the_gpu{Device::Kind::cuda, 0};

/// Skips a test, saying so, where there is no GPU.
#define LINNET_NEED_GPU()                                         \
  try {                                                           \
    open_gpu(the_gpu);                                            \
  } catch (const Error& error) {                                  \
    GTEST_SKIP() << "not run, there is no GPU: " << error.what(); \
  }

/// What a result in this type may differ from that of the CPU in f32 on the same (rounded) inputs.
inline double gpu_tolerance(DType dtype) {
  switch (dtype) {
    case DType::bf16: return 2e-2;
    case DType::f16: return 3e-3;
    default: return 1e-4;
  }
}

/// Computes in `dtype` where there is a choice.
using TypedOperation = std::function<Tensor(const Inputs& inputs, DType dtype)>;

struct GpuRow {
  std::string name;
  Inputs inputs;           ///< f32, or i64
  std::string typed = {};  ///< a letter for each input: 't' if it is of the type that is tested, '.' if it
                           ///< stays as it is; empty: all that are f32 are of that type
  TypedOperation operation = {};
  bool differentiable = true;
  std::vector<DType> types = {DType::f32, DType::bf16, DType::f16};
};

inline bool is_typed(const GpuRow& row, size_t i) {
  if (row.inputs[i].dtype() != DType::f32) return false;
  return row.typed.empty() || row.typed.at(i) == 't';
}

inline Result run_as(const GpuRow& row, const Inputs& inputs, const Tensor& weights, DType dtype) {
  const Operation operation = [&](const Inputs& in) { return row.operation(in, dtype); };
  if (!row.differentiable) return {operation(inputs), {}};
  return run(operation, inputs, weights);
}

inline void check_on_gpu(const GpuRow& row) {
  SCOPED_TRACE(row.name);
  for (const DType dtype : row.types) {
    SCOPED_TRACE(name_of(dtype));
    Inputs here, there;
    for (size_t i = 0; i < row.inputs.size(); ++i) {
      const Tensor rounded = is_typed(row, i) ? row.inputs[i].to(dtype) : row.inputs[i];
      here.push_back(is_typed(row, i) ? rounded.to(DType::f32) : rounded);
      there.push_back(rounded.defined() ? rounded.to(the_gpu) : rounded);
    }
    const Tensor shape = row.operation(here, DType::f32);
    const Tensor weights = random(shape.shape(), 99);
    const Result expected = run_as(row, here, weights, DType::f32);
    const Result actual = run_as(row, there, weights.to(the_gpu), dtype);
    ASSERT_TRUE(actual.output.on_gpu());
    EXPECT_EQ(actual.output.shape(), expected.output.shape());
    EXPECT_LT(relative_error(actual.output.host(), values_of(expected.output)), gpu_tolerance(dtype));
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
      if (!expected.gradients[i].defined()) continue;
      ASSERT_TRUE(actual.gradients[i].defined()) << "input " << i << " got no gradient";
      EXPECT_LT(relative_error(actual.gradients[i].host(), values_of(expected.gradients[i])),
                gpu_tolerance(dtype))
          << "gradient of input " << i;
    }
  }
}

}  // namespace linnet::ops::test
