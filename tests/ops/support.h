// What the tests of operations share: random tensors, the comparison of a tensor with double-precision numbers,
// and running a test under every instruction set and with several numbers of threads.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "core/random.h"
#include "core/tape.h"
#include "core/tensor.h"

namespace linnet::ops::test {

/// A tensor's numbers as the plain references use them.
using Values = std::vector<double>;

inline Values values_of(const Tensor& tensor) {
  const Tensor f32 = tensor.to(DType::f32);
  return Values(f32.values<float>().begin(), f32.values<float>().end());
}

/// Normal random numbers; those of bf16 tensors are exactly what the tensor holds after rounding.
inline Tensor random(const Shape& shape, uint64_t seed, DType dtype = DType::f32, float scale = 1.0f) {
  Tensor result = Generator(seed).normal(shape);
  for (float& value : std::span(result.mutable_data<float>(), static_cast<size_t>(result.numel())))
    value *= scale;
  return result.to(dtype);
}

/// ‖actual − expected‖ / ‖expected‖; infinite if any number is not finite or the sizes differ.
inline double relative_error(const Values& actual, const Values& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double result = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  return std::isfinite(result) ? result : std::numeric_limits<double>::infinity();
}

inline double relative_error(const Tensor& actual, const Values& expected) {
  if (!actual.defined()) return std::numeric_limits<double>::infinity();
  return relative_error(values_of(actual), expected);
}

/// The relative error that a result in this type may have: 1e-4 in f32, 2e-2 in bf16.
inline double tolerance(DType dtype) { return dtype == DType::bf16 ? 2e-2 : 1e-4; }

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// The targets, as HWY_* numbers, that kernels are compiled for and this machine can run.
inline std::vector<int64_t> instruction_sets() {
  const int64_t usable = HWY_TARGETS & (hwy::SupportedTargets() | HWY_STATIC_TARGET);
  std::vector<int64_t> result;
  for (int64_t rest = usable; rest != 0; rest &= rest - 1) result.push_back(rest & ~(rest - 1));
  return result;
}

/// Kernels run on one instruction set while this lives. Highway reads the mock only when its cached choice is
/// uninitialised, so both are set and reset together.
class InstructionSet {
 public:
  explicit InstructionSet(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
  }
  ~InstructionSet() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
  InstructionSet(const InstructionSet&) = delete;
  InstructionSet& operator=(const InstructionSet&) = delete;
};

inline void each_instruction_set(const std::function<void()>& body) {
  for (const int64_t target : instruction_sets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    const InstructionSet set(target);
    body();
  }
}

/// Loops use this many threads while it lives.
class Threads {
 public:
  explicit Threads(int count) : before_(threads()) { set_threads(count); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

using Inputs = std::vector<Tensor>;
using Operation = std::function<Tensor(const Inputs&)>;

/// An operation's result and the gradients of Σ result·weights with respect to its inputs (undefined where none
/// came).
struct Result {
  Tensor output;
  std::vector<Tensor> gradients;
};

inline Result run(const Operation& operation, const Inputs& inputs, const Tensor& weights) {
  Inputs leaves;
  for (const Tensor& input : inputs) {
    leaves.push_back(input.detach());
    leaves.back().set_requires_grad(input.defined() && input.dtype() != DType::i64);
  }
  Tape tape;
  Result result{operation(leaves), {}};
  tape.backward(result.output, weights);
  for (const Tensor& leaf : leaves) result.gradients.push_back(leaf.grad());
  return result;
}

/// Expects that a NaN within an input, each in turn, reaches the result.
inline void expect_passes_not_a_number_on(const Operation& operation, const Inputs& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    Inputs tainted = inputs;
    tainted[i] = inputs[i].clone();
    tainted[i].mutable_data<float>()[2] = std::nanf("");
    each_instruction_set([&] {
      double sum = 0;
      for (const double x : values_of(operation(tainted))) sum += x;
      EXPECT_TRUE(std::isnan(sum)) << "in input " << i;
    });
  }
}

/// The sentence with which body fails.
inline std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& other) {
    return std::string("not a linnet::Error: ") + other.what();
  }
  return "no error";
}

}  // namespace linnet::ops::test
