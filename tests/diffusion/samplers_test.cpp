// What the samplers themselves decide; what they compute is compared in pipeline/ with the originals.
#include "diffusion/samplers.h"

#include <gtest/gtest.h>

namespace linnet {
namespace {

std::vector<int64_t> timesteps_of_dpm_solver(int steps) {
  std::vector<int64_t> timesteps;
  const Denoiser model = [&](const Tensor& x, const Tensor& t) {
    timesteps.push_back(static_cast<int64_t>(t.data<float>()[0]));
    return Tensor::zeros(x.shape());
  };
  sample_dpmpp_2m(model, Tensor::zeros({1, 1, 2, 2}), NoiseSchedule::linear(), steps, {}, TimeGrid::rounded);
  return timesteps;
}

// numpy.linspace(0, 999, steps + 1).round()[::-1][:-1], where 15·(999/30) is a little less than 499.5.
TEST(DpmSolver, RoundsItsGridAsNumpyDoes) {
  EXPECT_EQ(timesteps_of_dpm_solver(4), (std::vector<int64_t>{999, 749, 500, 250}));
  const auto thirty = timesteps_of_dpm_solver(30);
  ASSERT_EQ(thirty.size(), 30u);
  EXPECT_EQ(thirty[15], 499);
  EXPECT_EQ(timesteps_of_dpm_solver(26)[13], 499);
}

}  // namespace
}  // namespace linnet
