// From samples to pictures.
#include "pipeline/decode.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "models/vae.h"
#include "support/compare.h"

namespace linnet {
namespace {

// As diffusers' pipelines: latents / scaling_factor + shift_factor. Encoded latents are (z − shift)·scaling.
TEST(DecodeSamples, UndoesScaleAndShift) {
  VaeConfig config;
  config.block_out_channels = {8, 8};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  config.scaling_factor = 0.25;
  config.shift_factor = 0.75;
  Vae vae(config);
  nn::initialize(vae, 1);
  const Tensor samples = Generator(2).normal({1, 4, 4, 4});
  Tensor latents = samples.clone();
  for (float& value : std::span(latents.mutable_data<float>(), 64)) value = value / 0.25f + 0.75f;
  const Tensor expected = vae.decode(latents);
  ASSERT_GT(test::relative_error(vae.decode(samples), expected), 0.1);
  EXPECT_LT(test::relative_error(decode_samples(vae, samples, 0), expected), 1e-5);
}

TEST(DecodeSamples, AGpuIsLimitedByItsOwnMemoryAlone) {
  EXPECT_EQ(usual_decoding_memory({}), size_t{4} << 30);
  EXPECT_EQ(usual_decoding_memory({Device::Kind::cuda, 0}), 0u);
}

}  // namespace
}  // namespace linnet
