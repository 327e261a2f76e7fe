// A row of the table of operations: inputs, the operation, and its formula written plainly in double precision.
// One row is checked in both directions on every instruction set: its result against the formula, its gradients
// against central finite differences of Σ formula·weights.
#pragma once

#include "ops/support.h"

namespace linnet::ops::test {

using Formula = std::function<Values(const std::vector<Values>&)>;

struct Row {
  std::string name;
  Inputs inputs;
  Operation operation;
  Formula formula;
  bool differentiable = true;
};

inline double loss_of(const Formula& formula, const std::vector<Values>& inputs, const Values& weights) {
  const Values output = formula(inputs);
  double loss = 0;
  for (size_t i = 0; i < output.size(); ++i) loss += output[i] * weights[i];
  return loss;
}

/// Of large inputs, every n-th element is differentiated.
inline size_t stride_of(const Values& input) {
  constexpr size_t most = 150;
  return input.size() <= most ? 1 : input.size() / most | 1u;
}

inline Values every(const Values& values, size_t stride) {
  Values result;
  for (size_t i = 0; i < values.size(); i += stride) result.push_back(values[i]);
  return result;
}

/// The derivative of Σ formula·weights for every stride-th element of one input.
inline Values finite_differences(const Formula& formula, std::vector<Values> inputs, size_t which,
                                 const Values& weights) {
  constexpr double step = 1e-5;
  Values result;
  for (size_t i = 0; i < inputs[which].size(); i += stride_of(inputs[which])) {
    const double x = inputs[which][i];
    inputs[which][i] = x + step;
    const double above = loss_of(formula, inputs, weights);
    inputs[which][i] = x - step;
    const double below = loss_of(formula, inputs, weights);
    inputs[which][i] = x;
    result.push_back((above - below) / (2 * step));
  }
  return result;
}

inline bool any_bf16(const Inputs& inputs, const Tensor& output) {
  bool result = output.dtype() == DType::bf16;
  for (const Tensor& input : inputs) result = result || input.dtype() == DType::bf16;
  return result;
}

inline void check_row(const Row& row) {
  SCOPED_TRACE(row.name);
  std::vector<Values> inputs;
  for (const Tensor& input : row.inputs)
    inputs.push_back(input.dtype() == DType::i64 ? Values(input.values<int64_t>().begin(), input.values<int64_t>().end())
                                                 : values_of(input));
  const Values expected = row.formula(inputs);
  const Tensor shape_and_type = row.operation(row.inputs);
  const Tensor weights = random(shape_and_type.shape(), 99, shape_and_type.dtype());
  std::vector<Values> slopes(inputs.size());
  for (size_t i = 0; row.differentiable && i < inputs.size(); ++i)
    slopes[i] = finite_differences(row.formula, inputs, i, values_of(weights));

  each_instruction_set([&] {
    if (!row.differentiable) {
      const Tensor output = row.operation(row.inputs);
      EXPECT_LT(relative_error(output, expected), tolerance(output.dtype()));
      return;
    }
    const Result result = run(row.operation, row.inputs, weights);
    const double accepted = any_bf16(row.inputs, result.output) ? tolerance(DType::bf16) : tolerance(DType::f32);
    EXPECT_LT(relative_error(result.output, expected), accepted);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (row.inputs[i].dtype() == DType::i64) continue;
      ASSERT_TRUE(result.gradients[i].defined()) << "input " << i << " got no gradient";
      ASSERT_EQ(result.gradients[i].shape(), row.inputs[i].shape());
      EXPECT_LT(relative_error(every(values_of(result.gradients[i]), stride_of(inputs[i])), slopes[i]), accepted)
          << "gradient of input " << i;
    }
  });
}

}  // namespace linnet::ops::test
