// Every optimiser's step on the GPU against the CPU's, over several steps: clipped, and without a gradient.
#include "train/optimizer.h"

#include "gpu/support.h"
#include "ops/adamw.h"
#include "ops/combine.h"
#include "ops/gpu_kernels.h"
#include "ops/muon.h"

namespace linnet::ops::test {
namespace {

constexpr int64_t steps = 4;

Tensor gradient_of(const Shape& shape, int64_t step) {
  return step == 2 ? Tensor() : random(shape, 10 + static_cast<uint64_t>(step));
}

void expect_same(const std::string& name, const Tensor& here, const Tensor& there) {
  ASSERT_EQ(here.defined(), there.defined()) << name;
  if (!here.defined()) return;
  ASSERT_TRUE(there.on_gpu()) << name;
  EXPECT_LT(relative_error(there.host(), values_of(here)), 1e-5) << name;
}

TEST(GpuOperations, ClipFactor) {
  LINNET_NEED_GPU();
  std::vector<Tensor> here, there;
  for (const int64_t n : {1, 6, 1023, 5000, 70001}) {
    const Tensor x = random({n}, static_cast<uint64_t>(n)), on_card = x.to(the_gpu);
    for (const int64_t first : {int64_t{0}, int64_t{n > 1}}) {  // the second begins within 16 bytes
      here.push_back(x.rows(first, n));
      there.push_back(on_card.rows(first, n));
      const std::vector<Tensor> one{here.back()}, other{there.back()};
      expect_same(std::to_string(n), clip_to(0, one, {}).norm, clip_to(0, other, the_gpu).norm);
    }
  }
  for (const double limit : {0.0, 1.0, 300.0, 1000.0}) {
    const Clip expected = clip_to(limit, here, {}), actual = clip_to(limit, there, the_gpu);
    expect_same("norm", expected.norm, actual.norm);
    expect_same("factor", expected.factor, actual.factor);
  }
  EXPECT_EQ(clip_to(1, {}, the_gpu).norm.item(), 0.0f);
  EXPECT_EQ(clip_to(1, {}, the_gpu).factor.item(), 1.0f);
  EXPECT_EQ(error_of([] { clip_to(1, {Tensor::zeros({2}, DType::bf16, the_gpu)}, the_gpu); }),
            "clip_to: a gradient is of bf16, not f32");
}

// Many parameters in one call, of one part and of several, aligned and not.
TEST(GpuOperations, AdamW) {
  LINNET_NEED_GPU();
  const auto run_on = [&](const Device& device) {
    const Tensor clip = Tensor::full({1}, 0.5f, device);
    std::vector<Optimized> parameters;
    for (const int64_t n : {1, 7, 64, 1000, 5003, 9000}) {
      const auto zeros = [&] { return Tensor::zeros({n}, DType::f32, device); };
      const Tensor value = random({n}, 1).to(device);
      parameters.push_back({value, {}, zeros(), zeros(), value.clone()});
    }
    for (int64_t step = 0; step < steps; ++step) {
      for (Optimized& p : parameters) p.gradient = gradient_of(p.value.shape(), step).to(device);
      adamw_step({1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, step + 1, 0.99f}, clip, parameters);
    }
    return parameters;
  };
  const auto here = run_on({}), there = run_on(the_gpu);
  for (size_t i = 0; i < here.size(); ++i) {
    SCOPED_TRACE(i);
    expect_same("value", here[i].value, there[i].value);
    expect_same("mean", here[i].mean, there[i].mean);
    expect_same("square", here[i].square, there[i].square);
    expect_same("ema", here[i].ema, there[i].ema);
  }
}

// Vectors, single matrices smaller and larger than a tile, and stacks of them.
TEST(GpuOperations, Came) {
  LINNET_NEED_GPU();
  for (const Shape& shape :
       {Shape{1}, Shape{50}, Shape{3001}, Shape{7, 13}, Shape{1, 5}, Shape{130, 300}, Shape{6, 1, 5, 5}}) {
    SCOPED_TRACE(to_string(shape));
    const auto run_on = [&](const Device& device) {
      const Tensor clip = Tensor::full({1}, 0.5f, device);
      Tensor value = random(shape, 1).to(device), ema = value.clone();
      CameState state = fresh_came_state(shape, device);
      for (int64_t step = 0; step < steps; ++step)
        came_step({1e-2f, 0.9f, 0.99f, 0.995f, 0.1f, 0.99f}, clip, value, gradient_of(shape, step).to(device),
                  state, ema);
      return std::vector{value,
                         ema,
                         state.mean,
                         state.square,
                         state.square_rows,
                         state.square_columns,
                         state.residual_rows,
                         state.residual_columns};
    };
    const auto here = run_on({}), there = run_on(the_gpu);
    for (size_t i = 0; i < here.size(); ++i) expect_same(std::to_string(i), here[i], there[i]);
  }
}

// Muon's own kernels, without the products between them, on two matrices.
TEST(GpuOperations, MuonKernels) {
  LINNET_NEED_GPU();
  const OptimizerKernels& kernels = gpu_kernels().optimizer;
  constexpr int64_t count = 2, rows = 13, n = rows * rows;
  const Shape shape{count, rows, rows};
  const Tensor clip = Tensor::full({1}, 0.5f, the_gpu), update = random(shape, 3),
               gradients = update.to(the_gpu);
  const Tensor value = random(shape, 1).to(the_gpu), mean = random(shape, 2).to(the_gpu), ema = value.clone();
  const Values p = values_of(value.host()), m = values_of(mean.host()), o = values_of(update);
  const GpuMuon settings{.momentum = 0.9f, .step = 0.1f, .kept = 0.7f, .ema_decay = 0.99f};
  const Tensor ahead = Tensor::empty(shape, DType::f32, the_gpu);
  std::vector<GpuParameter> matrices;
  for (int64_t i = 0; i < count; ++i) {
    const auto of = [i](const Tensor& stack) { return stack.rows(i, i + 1).view(); };
    matrices.push_back({of(value), of(gradients), of(mean), {}, of(ema), n});
  }
  kernels.muon_ahead(settings, clip.view(), matrices.data(), count, ahead.view());
  kernels.muon_move(settings, gradients.view(), matrices.data(), count);
  Values moved_mean, moved_ahead, moved, average;
  for (size_t i = 0; i < p.size(); ++i) {
    moved_mean.push_back(0.9 * m[i] + 0.5 * o[i]);
    moved_ahead.push_back(0.5 * o[i] + 0.9 * moved_mean[i]);
    moved.push_back(0.7 * p[i] - 0.1 * o[i]);
    average.push_back(0.99 * p[i] + 0.01 * moved[i]);
  }
  EXPECT_LT(relative_error(mean.host(), moved_mean), 1e-5);
  EXPECT_LT(relative_error(ahead.host(), moved_ahead), 1e-5);
  EXPECT_LT(relative_error(value.host(), moved), 1e-5);
  EXPECT_LT(relative_error(ema.host(), average), 1e-5);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor gram = update.to(dtype), squared = random(shape, 4);
    const Tensor result = Tensor::empty(shape, dtype, the_gpu);
    kernels.muon_polynomial(gram.to(the_gpu).view(), squared.to(the_gpu).view(), 3.0f, -2.0f, 0.5f,
                            result.view(), count, rows);
    const Values linear = values_of(gram.to(DType::f32));
    Values expected = values_of(squared);
    for (int64_t i = 0; i < count * n; ++i) {
      const auto at = static_cast<size_t>(i);
      expected[at] = 0.5 * expected[at] - 2 * linear[at] + (i % n % (rows + 1) == 0 ? 3 : 0);
    }
    EXPECT_LT(relative_error(result.host(), expected), gpu_tolerance(dtype)) << name_of(dtype);
  }
}

// Of one piece of a matrix and of several; a matrix of zeros stays one.
TEST(GpuOperations, DivideByNorms) {
  LINNET_NEED_GPU();
  for (const int64_t n : {1, 30, 5000, 70001})
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const Tensor x = concat_rows({random({1, n}, 1), Tensor::zeros({1, n}), random({1, n}, 2)});
      const Tensor y = Tensor::empty(x.shape(), dtype, the_gpu);
      gpu_kernels().optimizer.divide_by_norms(x.to(the_gpu).view(), 1e-7f, y.view(), 3, n);
      Values expected = values_of(x);
      for (size_t matrix = 0; matrix < 3; ++matrix) {
        const std::span of(expected.data() + matrix * static_cast<size_t>(n), static_cast<size_t>(n));
        double squares = 0;
        for (const double v : of) squares += v * v;
        for (double& v : of) v /= std::max(std::sqrt(squares), 1e-7);
      }
      EXPECT_LT(relative_error(y.host(), expected), gpu_tolerance(dtype)) << n << ", " << name_of(dtype);
    }
}

// Several matrices of one shape, wide, tall and square.
TEST(GpuOperations, Muon) {
  LINNET_NEED_GPU();
  const auto run_on = [&](const Device& device) {
    const Tensor clip = Tensor::full({1}, 0.5f, device);
    std::vector<Optimized> matrices;
    for (const Shape& shape : {Shape{12, 20}, Shape{33, 17}, Shape{16, 16}, Shape{12, 20}, Shape{12, 20}}) {
      const Tensor value = random(shape, matrices.size()).to(device);
      matrices.push_back({value, {}, Tensor::zeros(shape, DType::f32, device), {}, value.clone()});
    }
    for (int64_t step = 0; step < steps; ++step) {
      for (Optimized& m : matrices) m.gradient = gradient_of(m.value.shape(), step).to(device);
      muon_step({1e-2f, 0.9f, 0.1f, 0.99f}, clip, matrices, DType::f32);
    }
    return matrices;
  };
  const auto here = run_on({}), there = run_on(the_gpu);
  for (size_t i = 0; i < here.size(); ++i) {
    SCOPED_TRACE(to_string(here[i].value.shape()));
    expect_same("value", here[i].value, there[i].value);
    expect_same("mean", here[i].mean, there[i].mean);
    expect_same("ema", here[i].ema, there[i].ema);
  }
}

// A whole step of several parameters, clipped by the norm of all their gradients.
TEST(GpuOptimizer, StepsAsOnTheCpu) {
  LINNET_NEED_GPU();
  for (const std::string name : {"adamw", "came", "muon"}) {
    SCOPED_TRACE(name);
    const auto run_on = [&](const Device& device) {
      nn::Parameter weight({20, 24}, {}), bias({20}, {}), weight_average = weight, bias_average = bias;
      weight.value = random(weight.shape, 1).to(device);
      bias.value = random(bias.shape, 2).to(device);
      const nn::ParameterList parameters{{"blocks.0.weight", &weight}, {"blocks.0.bias", &bias}};
      Optimizer optimizer(parameters, {{"blocks.0.weight", &weight_average}, {"blocks.0.bias", &bias_average}},
                          name);
      OptimizerConfig config;
      config.clip = 1;
      std::vector<Tensor> results;
      for (int64_t step = 0; step < 3; ++step) {
        for (const auto& [of, parameter] : parameters)
          accumulate_grad(parameter->value.grad_slot(),
                          random(parameter->shape, 20 + static_cast<uint64_t>(step)).to(device));
        results.push_back(optimizer.step(config, 1e-2, step));
      }
      for (const auto& [of, tensor] : optimizer.state()) results.push_back(tensor);
      return results;
    };
    const auto here = run_on({}), there = run_on(the_gpu);
    ASSERT_EQ(here.size(), there.size());
    for (size_t i = 0; i < here.size(); ++i) expect_same(std::to_string(i), here[i], there[i]);
  }
}

}  // namespace
}  // namespace linnet::ops::test
