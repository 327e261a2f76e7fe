// Every optimiser's step on the GPU against the CPU's, over several steps: clipped, and without a gradient.
#include "train/optimizer.h"

#include "gpu/support.h"
#include "ops/adamw.h"
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
  const std::vector<Tensor> here = {random({1}, 1), random({3, 7}, 2), random({5000}, 3)};
  std::vector<Tensor> there;
  for (const Tensor& gradient : here) there.push_back(gradient.to(the_gpu));
  for (const double limit : {0.0, 1.0, 60.0, 1000.0}) {
    const Clip expected = clip_to(limit, here, {}), actual = clip_to(limit, there, the_gpu);
    expect_same("norm", expected.norm, actual.norm);
    expect_same("factor", expected.factor, actual.factor);
  }
  EXPECT_EQ(clip_to(1, {}, the_gpu).norm.item(), 0.0f);
  EXPECT_EQ(clip_to(1, {}, the_gpu).factor.item(), 1.0f);
}

TEST(GpuOperations, AdamW) {
  LINNET_NEED_GPU();
  for (const int64_t n : {1, 7, 64, 1000, 5003}) {
    SCOPED_TRACE(n);
    const auto run_on = [&](const Device& device) {
      const Tensor clip = Tensor::full({1}, 0.5f, device);
      const auto zeros = [&] { return Tensor::zeros({n}, DType::f32, device); };
      Tensor value = random({n}, 1).to(device), ema = value.clone(), mean = zeros(), square = zeros();
      for (int64_t step = 0; step < steps; ++step)
        adamw_step({1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, step + 1, 0.99f}, clip, value,
                   gradient_of({n}, step).to(device), mean, square, ema);
      return std::vector{value, mean, square, ema};
    };
    const auto here = run_on({}), there = run_on(the_gpu);
    for (size_t i = 0; i < here.size(); ++i) expect_same(std::to_string(i), here[i], there[i]);
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

// Muon's own kernels, without the products between them.
TEST(GpuOperations, MuonKernels) {
  LINNET_NEED_GPU();
  const OptimizerKernels& kernels = gpu_kernels().optimizer;
  constexpr int64_t rows = 13, n = rows * rows;
  const Shape shape{rows, rows};
  const Tensor clip = Tensor::full({1}, 0.5f, the_gpu), update = random(shape, 3);
  Tensor value = random(shape, 1).to(the_gpu), mean = random(shape, 2).to(the_gpu), ema = value.clone();
  const Values p = values_of(value.host()), m = values_of(mean.host()), o = values_of(update);
  const GpuMuon settings{.momentum = 0.9f, .step = 0.1f, .kept = 0.7f, .ema_decay = 0.99f};
  Tensor ahead = Tensor::empty(shape, DType::f32, the_gpu);
  kernels.muon_ahead(settings, clip.view(), update.to(the_gpu).view(), mean.view(), ahead.view(), n);
  kernels.muon_move(settings, update.to(the_gpu).view(), value.view(), ema.view(), n);
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
    const Tensor gram = update.to(dtype), squared = random(shape, 4), g32 = gram.to(DType::f32);
    const Tensor there = squared.to(the_gpu);
    kernels.muon_polynomial(gram.to(the_gpu).view(), there.view(), 3.0f, -2.0f, 0.5f, rows);
    Values expected = values_of(squared);
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] = 0.5 * expected[i] - 2 * values_of(g32)[i] + (i % (rows + 1) == 0 ? 3 : 0);
    EXPECT_LT(relative_error(there.host(), expected), 1e-5) << name_of(dtype);
    const Tensor divided = Tensor::empty(shape, dtype, the_gpu);
    kernels.divide_by_norm(squared.to(the_gpu).view(), Tensor::full({1}, 4.0f, the_gpu).view(), 1e-7f,
                           divided.view(), n);
    Values halves = values_of(squared);
    for (double& half : halves) half /= 2;
    EXPECT_LT(relative_error(divided.host(), halves), gpu_tolerance(dtype)) << name_of(dtype);
  }
}

TEST(GpuOperations, Muon) {
  LINNET_NEED_GPU();
  for (const Shape& shape : {Shape{12, 20}, Shape{33, 17}, Shape{16, 16}}) {
    SCOPED_TRACE(to_string(shape));
    const auto run_on = [&](const Device& device) {
      const Tensor clip = Tensor::full({1}, 0.5f, device);
      Tensor value = random(shape, 1).to(device), ema = value.clone();
      Tensor mean = Tensor::zeros(shape, DType::f32, device);
      for (int64_t step = 0; step < steps; ++step)
        muon_step({1e-2f, 0.9f, 0.1f, 0.99f}, clip, value, gradient_of(shape, step).to(device), mean, ema,
                  DType::f32);
      return std::vector{value, mean, ema};
    };
    const auto here = run_on({}), there = run_on(the_gpu);
    for (size_t i = 0; i < here.size(); ++i) expect_same(std::to_string(i), here[i], there[i]);
  }
}

// A whole step of several parameters, clipped by the norm of all their gradients.
TEST(GpuOptimizer, StepsAsOnTheCpu) {
  LINNET_NEED_GPU();
  for (const std::string name : {"adamw", "came"}) {
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
