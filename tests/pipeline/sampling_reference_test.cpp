// The samplers and guidance, driven by a tiny LiT, against dumps of the originals (tests/reference).
#include <gtest/gtest.h>

#include "diffusion/samplers.h"
#include "io/safetensors.h"
#include "store/dit_file.h"
#include "support/compare.h"

namespace linnet {
namespace {

using test::relative_error;

std::string reference(const char* name) {
  return fmt::format("{}/reference/{}.safetensors", LINNET_TEST_DATA, name);
}

class SamplingReference : public testing::Test {
 protected:
  Denoiser denoiser(int64_t guided_channels) const {
    const DiT& model = *loaded.model;
    const auto predict = [&model](const Tensor& x, const Tensor& t, const Tensor& y) {
      return model.forward(x, t, y);
    };
    return guide(conditioned(predict, dumps.tensor("y"), model.config().num_classes),
                 dumps.tensor("cfg_scale").item(), guided_channels);
  }
  NoiseSource recorded_noise() const {
    auto next = std::make_shared<int64_t>(0);
    const Tensor all = dumps.tensor("ddpm.noise");
    return [next, all](const Shape& shape) {
      const int64_t i = (*next)++;
      return all.rows(i, i + 1).reshape(shape);
    };
  }

  SafetensorsFile dumps = SafetensorsFile::open(reference("sampling"));
  LoadedDiT loaded = load_dit(reference("sampling.model"));
  NoiseSchedule full = NoiseSchedule::linear();
  Tensor start = dumps.tensor("x_T");
};

TEST_F(SamplingReference, RespacingChoosesTheOriginalsTimesteps) {
  for (const int count : {7, 10, 250}) {
    const Tensor expected = dumps.tensor(fmt::format("spaced.{}", count));
    const NoiseSchedule spaced = full.spaced(count);
    for (int i = 0; i < count; ++i)
      EXPECT_EQ(spaced.timestep[static_cast<size_t>(i)], expected.data<int64_t>()[i]);
  }
}

TEST_F(SamplingReference, GuidanceMixesTheFirstThreeOrAllChannels) {
  const Tensor t = Tensor::full({start.size(0)}, 500.0f);
  EXPECT_LT(relative_error(denoiser(3)(start, t), dumps.tensor("guided.cfg3")), 1e-4);
  EXPECT_LT(relative_error(denoiser(4)(start, t), dumps.tensor("guided.cfg_all")), 1e-4);
}

TEST_F(SamplingReference, Ddpm) {
  const auto spaced = full.spaced(10);
  EXPECT_LT(
      relative_error(sample_ddpm(denoiser(3), start, spaced, recorded_noise()), dumps.tensor("ddpm.10.cfg3")),
      1e-4);
  EXPECT_LT(relative_error(sample_ddpm(denoiser(4), start, spaced, recorded_noise()),
                           dumps.tensor("ddpm.10.cfg_all")),
            1e-4);
}

TEST_F(SamplingReference, Ddim) {
  for (const int count : {7, 10}) {
    const auto spaced = full.spaced(count);
    const auto three = dumps.tensor(fmt::format("ddim.{}.cfg3", count)),
               all = dumps.tensor(fmt::format("ddim.{}.cfg_all", count));
    EXPECT_LT(relative_error(sample_ddim(denoiser(3), start, spaced, 0, {}), three), 1e-4);
    EXPECT_LT(relative_error(sample_ddim(denoiser(4), start, spaced, 0, {}), all), 1e-4);
  }
}

TEST_F(SamplingReference, DpmSolverPlusPlus) {
  EXPECT_LT(relative_error(sample_dpmpp_2m(denoiser(3), start, full, 10), dumps.tensor("dpmpp.10.cfg3")), 1e-4);
  EXPECT_LT(relative_error(sample_dpmpp_2m(denoiser(4), start, full, 10), dumps.tensor("dpmpp.10.cfg_all")),
            1e-4);
}

TEST(SamplingReferenceFixedVariance, DdpmWithoutLearnedVariance) {
  const auto inputs = SafetensorsFile::open(reference("sampling"));
  const auto dumps = SafetensorsFile::open(reference("sampling_no_sigma"));
  const LoadedDiT loaded = load_dit(reference("sampling_no_sigma.model"));
  const auto model = [&](const Tensor& x, const Tensor& t, const Tensor& y) {
    return loaded.model->forward(x, t, y);
  };
  const Denoiser denoiser =
      guide(conditioned(model, inputs.tensor("y"), 3), inputs.tensor("cfg_scale").item(), 4);
  int64_t next = 0;
  const auto noise = [&](const Shape& shape) {
    return ++next, inputs.tensor("ddpm.noise").rows(next - 1, next).reshape(shape);
  };
  const Tensor x = sample_ddpm(denoiser, inputs.tensor("x_T"), NoiseSchedule::linear().spaced(10), noise);
  EXPECT_LT(relative_error(x, dumps.tensor("ddpm.10.cfg_all")), 1e-4);
}

}  // namespace
}  // namespace linnet
