// Samplers, guidance and the training loss on the GPU, against the same on the CPU.
#include "diffusion/loss.h"
#include "diffusion/recorded.h"
#include "diffusion/samplers.h"
#include "gpu/support.h"
#include "ops/combine.h"

namespace linnet::ops::test {
namespace {

const NoiseSchedule& full() {
  static const NoiseSchedule schedule = NoiseSchedule::linear();
  return schedule;
}

TEST(GpuOperations, Combine) {
  LINNET_NEED_GPU();
  // The last size fills packs, the others do not.
  for (const int64_t n : {1, 7, 1033, 2048}) {
    const auto row = [n](const char* name, Operation operation) {
      check_on_gpu({.name = fmt::format("{} {}", name, n),
                    .inputs = {random({n}, 1), random({n}, 2), random({n}, 3), random({n}, 4)},
                    .operation = [operation](const Inputs& in, DType) { return operation(in); },
                    .differentiable = false,
                    .types = {DType::f32}});
    };
    row("combine 1", [](const Inputs& in) { return combine({{2, in[0]}}); });
    row("combine 2", [](const Inputs& in) { return combine({{2, in[0]}, {-0.5f, in[1]}}, true); });
    row("combine 3", [](const Inputs& in) { return combine({{2, in[0]}, {1, in[1]}, {3, {}}, {1, in[3]}}); });
    row("combine 4", [](const Inputs& in) {
      return combine({{2, in[0]}, {1, in[1]}, {3, in[2]}, {-1, in[3]}}, true);
    });
    row("add_learned_noise", [](const Inputs& in) { return add_learned_noise(in[0], in[1], in[2], -9, -7); });
  }
}

TEST(GpuOperations, CombineSamples) {
  LINNET_NEED_GPU();
  for (const int64_t side : {1, 3, 8})
    for (const int64_t channels : {4, 8})
      check_on_gpu({.name = fmt::format("{} channels of {}", channels, side),
                    .inputs = {random({3, channels, side, side}, 1), random({3, 4, side, side}, 2)},
                    .operation =
                        [](const Inputs& in, DType) {
                          return combine_samples(in[0], in[1], {1, 2, 0.5f, -1, 3, 0.25f});
                        },
                    .differentiable = false,
                    .types = {DType::f32}});
}

TEST(GpuOperations, GuideAndTakeChannels) {
  LINNET_NEED_GPU();
  for (const int64_t side : {1, 3, 8})
    for (const int64_t part : {0, 3, 8}) {
      const auto row = [&](const char* name, Operation operation) {
        check_on_gpu({.name = fmt::format("{} {} channels of {}", name, part, side),
                      .inputs = {random({4, 8, side, side}, 1)},
                      .operation = [operation](const Inputs& in, DType) { return operation(in); },
                      .differentiable = false,
                      .types = {DType::f32}});
      };
      row("guide", [part](const Inputs& in) { return guided(in[0], 4.5f, part); });
      if (part > 0) row("take", [part](const Inputs& in) { return channels(in[0], 8 - part, part); });
    }
}

TEST(GpuOperations, RowsOfBothDevicesFollowEachOther) {
  LINNET_NEED_GPU();
  const Tensor a = random({2, 3}, 1), b = random({5, 3}, 2);
  const Tensor both = concat_rows({a, b.to(the_gpu), a.to(the_gpu)});
  ASSERT_TRUE(both.on_gpu());
  EXPECT_TRUE(same_bytes(both.host(), concat_rows({a, b, a})));
}

struct LossCase {
  Shape pictures;
  bool learned, taught;
  std::vector<int64_t> timesteps;
};

// A prediction near the truth, as far as that is easily said, so that no likelihood is clamped.
Tensor prediction_for(const LossCase& c, Prediction kind, const Tensor& x0, const Tensor& noise,
                      const Tensor& t) {
  const int64_t n = x0.numel() / x0.size(0), stride = c.learned ? 2 * n : n;
  Tensor result =
      random({x0.size(0), (c.learned ? 2 : 1) * x0.size(1), x0.size(2), x0.size(3)}, 5, DType::f32, 0.3f);
  for (int64_t b = 0; b < x0.size(0); ++b) {
    const double kept = full().alpha_bar[static_cast<size_t>(t.data<int64_t>()[b])];
    for (int64_t i = 0; i < n; ++i) {
      const double picture = x0.data<float>()[b * n + i], added = noise.data<float>()[b * n + i];
      const double target = kind == Prediction::epsilon ? added
                            : kind == Prediction::x0    ? picture
                                                     : std::sqrt(kept) * added - std::sqrt(1 - kept) * picture;
      float& value = result.mutable_data<float>()[b * stride + i];
      value = static_cast<float>(target) + 0.05f * value;
    }
  }
  return result;
}

void check_loss(const LossCase& c, Prediction kind) {
  SCOPED_TRACE(fmt::format("{} of {}{}{}", name_of(kind), to_string(c.pictures), c.learned ? ", learned" : "",
                           c.taught ? ", taught" : ""));
  Tensor x0 = random(c.pictures, 1), noise = random(c.pictures, 2);
  for (int64_t i = 0; i < x0.numel(); ++i) x0.mutable_data<float>()[i] = std::tanh(x0.data<float>()[i]);
  for (int64_t i = 0; i + 9 < x0.numel(); i += 9) {  // both outermost bins
    x0.mutable_data<float>()[i] = -1;
    x0.mutable_data<float>()[i + 4] = 1;
  }
  const Tensor t = Tensor::from(c.timesteps), xt = add_noise(full(), x0, noise, t);
  const Tensor predicted = prediction_for(c, kind, x0, noise, t);
  const Tensor teacher = c.taught ? random(predicted.shape(), 7) : Tensor();
  const auto run_on = [&](const Device& device, Tensor& gradient) {
    Tensor leaf = predicted.to(device).detach();
    leaf.set_requires_grad(true);
    Tape tape;
    // Only the prediction is there, and x_t: the rest follows.
    const DiffusionLoss loss =
        diffusion_loss(full(), kind, leaf, x0, xt.to(device), noise, t, {teacher, 0.5, 0.05});
    EXPECT_EQ(loss.learned, c.learned);
    EXPECT_EQ(loss.taught, c.taught);
    EXPECT_EQ(loss.total.device(), device);
    tape.backward(loss.total, Tensor::full({1}, 0.25f, device));
    gradient = leaf.grad().host();
    return std::pair(loss.total.host(), loss.losses.host());
  };
  Tensor here, there;
  const auto [total, losses] = run_on({}, here);
  const auto [gpu_total, gpu_losses] = run_on(the_gpu, there);
  EXPECT_LT(relative_error(gpu_total, values_of(total)), 1e-4);
  for (int64_t i = 0; i < losses.numel(); ++i)
    EXPECT_NEAR(gpu_losses.data<float>()[i], losses.data<float>()[i],
                1e-4f * std::abs(losses.data<float>()[i]) + 1e-6f)
        << "picture " << i / 4 << ", kind " << i % 4;
  EXPECT_LT(relative_error(there, values_of(here)), 1e-4);
}

TEST(GpuDiffusion, LossAndItsGradientAreThoseOfTheCpu) {
  LINNET_NEED_GPU();
  const std::vector<int64_t> steps{0, 1, 17, 500, 999};
  for (const Prediction kind : {Prediction::epsilon, Prediction::v, Prediction::x0})
    for (const bool learned : {false, true})
      for (const bool taught : {false, true}) {
        check_loss({{5, 3, 3, 5}, learned, taught, steps}, kind);  // 45 values: no packs
        check_loss({{5, 4, 8, 8}, learned, taught, steps}, kind);
      }
  check_loss({{2, 4, 32, 20}, true, true, {0, 600}}, Prediction::epsilon);  // several blocks a picture
  check_loss({{1, 3, 31, 31}, true, false, {0}}, Prediction::v);
}

TEST(GpuDiffusion, LossWithoutTapeIsTheSame) {
  LINNET_NEED_GPU();
  const Tensor x0 = random({2, 3, 4, 4}, 1), noise = random({2, 3, 4, 4}, 2),
               predicted = random({2, 6, 4, 4}, 3);
  const Tensor t = Tensor::from(std::vector<int64_t>{4, 800}), xt = add_noise(full(), x0, noise, t);
  const Tensor here = diffusion_loss(full(), Prediction::v, predicted, x0, xt, noise, t).losses;
  const Tensor there = diffusion_loss(full(), Prediction::v, predicted.to(the_gpu), x0, xt, noise, t).losses;
  EXPECT_LT(relative_error(there.host(), values_of(here)), 1e-4);
}

// At the first step far from the truth a chance is too small for any number, and its slope is none.
TEST(GpuDiffusion, AnImpossiblePredictionCostsNoMoreThanTheLimit) {
  LINNET_NEED_GPU();
  const Tensor x0 = Tensor::full({1, 1, 2, 2}, 0.1f), far = Tensor::full({1, 2, 2, 2}, 300);
  Tensor leaf = far.to(the_gpu);
  leaf.set_requires_grad(true);
  Tape tape;
  const Tensor t = Tensor::from(std::vector<int64_t>{0});
  const DiffusionLoss loss = diffusion_loss(full(), Prediction::x0, leaf, x0, x0, x0, t);
  tape.backward(loss.total);
  EXPECT_NEAR(loss.losses.host().data<float>()[1], -std::log2(1e-12), 1e-3);
  EXPECT_EQ(leaf.grad().host().data<float>()[5], 0);
}

TEST(GpuDiffusion, NoiseIsAddedAndFoundAgain) {
  LINNET_NEED_GPU();
  const Tensor x0 = random({3, 4, 3, 3}, 1), noise = random({3, 4, 3, 3}, 2),
               predicted = random({3, 8, 3, 3}, 3);
  const Tensor t = Tensor::from(std::vector<int64_t>{0, 400, 999}),
               times = Tensor::from(std::vector<float>{0, 400, 999});
  const Tensor xt = add_noise(full(), x0, noise, t), there = add_noise(full(), x0.to(the_gpu), noise, t);
  ASSERT_TRUE(there.on_gpu());
  EXPECT_LT(relative_error(there.host(), values_of(xt)), 1e-6);
  for (const Prediction kind : {Prediction::epsilon, Prediction::v, Prediction::x0}) {
    const Tensor found = noise_from(kind, full(), predicted.to(the_gpu), there, times);
    EXPECT_LT(relative_error(found.host(), values_of(noise_from(kind, full(), predicted, xt, times))), 1e-5);
  }
}

// Predicts, of x on either device, some of x as the noise, the more the later the time and the further back the
// sample stands, and where a variance is learned a constant for it.
class ToyModel {
 public:
  explicit ToyModel(bool learned) : learned_(learned) {}
  Tensor operator()(const Tensor& x, const Tensor& t) const {
    std::vector<float> factors;
    for (int64_t i = 0; i < x.size(0); ++i)
      factors.insert(factors.end(), {0.4f + 0.05f * static_cast<float>(i), t.data<float>()[i] * 1e-4f});
    return combine_samples(learned_ ? with_variance(x) : x, x, factors);
  }

 private:
  // (n, c, h, w) → (n, 2c, h, w)
  static Tensor with_variance(const Tensor& x) {
    const Shape each{x.size(1), x.size(2), x.size(3)};
    std::vector<Tensor> parts;
    for (int64_t i = 0; i < x.size(0); ++i) {
      parts.push_back(x.rows(i, i + 1).reshape(each));
      parts.push_back(Tensor::full(each, 0.3f, x.device()));
    }
    return concat_rows(parts).reshape({x.size(0), 2 * x.size(1), x.size(2), x.size(3)});
  }
  bool learned_;
};

class GpuSampling : public testing::TestWithParam<bool> {
 protected:
  // The noise always comes from the CPU, and the start does, too: the model decides.
  static void check_same(
      const std::function<Tensor(const Denoiser&, const NoiseSource&, const SamplingOptions&)>& draw) {
    const ToyModel toy(GetParam());
    const auto drawn_on = [&](const Device& device) {
      const Denoiser model = [&](const Tensor& x, const Tensor& t) { return toy(x.to(device), t); };
      Generator generator(3);
      int steps = 0;
      SamplingOptions options{false, [&](const SamplingStep& step) {
                                EXPECT_EQ(step.x.device(), device);
                                EXPECT_EQ(step.x0.device(), device);
                                ++steps;
                              }};
      const Tensor x = draw(
          guide({model, model}, 3.0f, 3), [&](const Shape& shape) { return generator.normal(shape); }, options);
      EXPECT_GT(steps, 0);
      EXPECT_EQ(x.device(), device);
      return x.host();
    };
    const Tensor here = drawn_on({}), there = drawn_on(the_gpu);
    EXPECT_LT(relative_error(there, values_of(here)), 1e-4);
  }

  Tensor start = random({2, 4, 3, 3}, 11);
};

TEST_P(GpuSampling, Ddpm) {
  LINNET_NEED_GPU();
  check_same([&](const Denoiser& model, const NoiseSource& noise, const SamplingOptions& options) {
    return sample_ddpm(model, start, full().spaced(10), noise, options);
  });
}

TEST_P(GpuSampling, Ddim) {
  LINNET_NEED_GPU();
  for (const float eta : {0.0f, 0.7f})
    check_same([&](const Denoiser& model, const NoiseSource& noise, SamplingOptions options) {
      options.clip_x0 = eta > 0;
      return sample_ddim(model, start, full().spaced(10), eta, noise, options);
    });
}

TEST_P(GpuSampling, DpmSolverPlusPlus) {
  LINNET_NEED_GPU();
  for (const TimeGrid grid : {TimeGrid::rounded, TimeGrid::fractional})
    check_same([&](const Denoiser& model, const NoiseSource&, const SamplingOptions& options) {
      return sample_dpmpp_2m(model, start, full(), 10, options, grid);
    });
}

INSTANTIATE_TEST_SUITE_P(Variance, GpuSampling, testing::Bool());

// Whether anything is recorded is the GPU's affair: the third call and the fourth are repetitions on a real
// one.
TEST(GpuDiffusion, ARecordedModelAnswersAsItself) {
  LINNET_NEED_GPU();
  const Denoiser plain = [](const Tensor& x, const Tensor& t) {
    EXPECT_EQ(t.device(), x.device());
    return combine({{2, x}, {0.5f, t.reshape(x.shape())}}, true);
  };
  const Denoiser model = recorded(plain);
  std::vector<Tensor> answers, expected;
  for (const int64_t n : {3, 3, 3, 3, 5, 5, 5, 3, 3, 3}) {
    const auto seed = static_cast<uint64_t>(answers.size());
    const Tensor x = random({n, 1, 1, 1}, seed), t = random({n}, 100 + seed);
    answers.push_back(model(x.to(the_gpu), t));
    expected.push_back(plain(x, t));
  }
  for (size_t i = 0; i < answers.size(); ++i)  // after all: none may have been written over
    EXPECT_LT(relative_error(answers[i].host(), values_of(expected[i])), 1e-6) << "call " << i;
  EXPECT_FALSE(model(random({2, 1, 1, 1}, 1), random({2}, 2)).on_gpu());
}

TEST(GpuDiffusion, ARecordedModelThatFailsSaysWhy) {
  LINNET_NEED_GPU();
  int calls = 0;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) {
    check(++calls == 1, "it is too late");
    return x;
  });
  const Tensor x = random({2, 1, 1, 1}, 1).to(the_gpu), t = random({2}, 2);
  model(x, t);
  EXPECT_THROW(model(x, t), Error);
  EXPECT_THROW(model(x, t), Error);
}

}  // namespace
}  // namespace linnet::ops::test
