// What is shown of samples while they are painted.
#include "pipeline/preview.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/random.h"
#include "io/safetensors.h"
#include "pipeline/decode.h"
#include "store/vae_file.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

// As diffusers would have written it.
std::unique_ptr<Vae> vae_of(const std::string& name) {
  const TemporaryFolder folder;
  const std::filesystem::path weights = LINNET_TEST_DATA "/reference/vae_" + name + ".model.safetensors";
  std::filesystem::copy_file(weights, folder / "diffusion_pytorch_model.safetensors");
  std::ofstream(folder / "config.json") << SafetensorsFile::open(weights).metadata().at("config");
  return load_vae(folder.path());
}

// The decoders of the dumps have random weights, whose nonlinearity no matrix follows. Without what their
// residual blocks add, and with SiLU where it is nearly straight, colours follow from the latents nearly
// linearly.
std::unique_ptr<Vae> nearly_linear_vae(const std::string& name) {
  std::unique_ptr<Vae> vae = vae_of(name);
  const auto fill = [](nn::Parameter& parameter, float value) {
    parameter.value = Tensor::zeros(parameter.shape);
    std::fill_n(parameter.value.mutable_data<float>(), parameter.value.numel(), value);
  };
  vae->visit("", [&](const std::string& parameter, nn::Parameter& p) {
    const auto has = [&](const char* part) { return parameter.find(part) != std::string::npos; };
    if (has("conv2.") || has("to_out.")) fill(p, 0);
    if (has("conv_norm_out.weight")) fill(p, 0.3f);
    if (has("conv_norm_out.bias")) fill(p, 3);
  });
  return vae;
}

// Each latent's square of pixels as one, (n, 3, h, w).
Tensor shrunken(const Tensor& pictures, int64_t size) {
  const int64_t h = pictures.size(2) / size, w = pictures.size(3) / size;
  Tensor small = Tensor::zeros({pictures.size(0), 3, h, w});
  for (int64_t i = 0; i < pictures.numel(); ++i) {
    const int64_t x = i % pictures.size(3), y = i / pictures.size(3) % pictures.size(2),
                  plane = i / (pictures.size(2) * pictures.size(3));
    small.mutable_data<float>()[(plane * h + y / size) * w + x / size] +=
        pictures.data<float>()[i] / static_cast<float>(size * size);
  }
  return small;
}

// Of two planes of 16 × 16 without their rims.
double correlation(const float* a, const float* b) {
  double n = 0, sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
  for (int64_t i = 0; i < 256; ++i) {
    if (std::min(i % 16, i / 16) < 2 || std::max(i % 16, i / 16) > 13) continue;
    const double x = a[i], y = b[i];
    n += 1, sa += x, sb += y, saa += x * x, sbb += y * y, sab += x * y;
  }
  return (sab - sa * sb / n) / std::sqrt((saa - sa * sa / n) * (sbb - sb * sb / n));
}

// Latents (2, channels, 16, 16) that change slowly from place to place.
Tensor smooth_latents(int64_t channels) {
  constexpr int64_t side = 16;
  Generator generator(3);
  const Tensor waves = generator.normal({2 * channels, 6});
  Tensor latents = Tensor::empty({2, channels, side, side});
  for (int64_t i = 0; i < latents.numel(); ++i) {
    const float* wave = waves.data<float>() + i / (side * side) * 6;
    const auto x = static_cast<float>(i % side) / side, y = static_cast<float>(i / side % side) / side;
    latents.mutable_data<float>()[i] =
        wave[0] + std::sin(3 * (wave[1] * x + wave[2] * y) + wave[3]) + 0.5f * wave[4] * x + 0.5f * wave[5] * y;
  }
  return latents;
}

TEST(Preview, OfPixelsIsThePictureItself) {
  const Tensor pictures = Generator(1).normal({2, 3, 8, 8});
  EXPECT_EQ(test::relative_error(SamplePreview()(pictures), pictures), 0);
}

class PreviewOfLatents : public testing::TestWithParam<const char*> {};

TEST_P(PreviewOfLatents, ResemblesWhatTheAutoencoderMakesOfThem) {
  const auto vae = nearly_linear_vae(GetParam());
  const Tensor latents = smooth_latents(vae->config().latent_channels);
  const Tensor preview = SamplePreview(*vae)(latents);
  ASSERT_EQ(preview.shape(), (Shape{2, 3, 16, 16}));
  const Tensor decoded = shrunken(decode_samples(*vae, latents, 0), vae->config().reduction());
  double sum = 0;
  for (int64_t i = 0; i < 6; ++i)
    sum += correlation(preview.data<float>() + i * 256, decoded.data<float>() + i * 256);
  EXPECT_GT(sum / 6, 0.6);  // random convolutions also colour by what is around, which no matrix follows
}

TEST_P(PreviewOfLatents, DoesNotDependOnTheMemoryThatItsDecodingMayTake) {
  const auto vae = vae_of(GetParam());
  const Tensor latents = smooth_latents(vae->config().latent_channels);
  EXPECT_LT(test::relative_error(SamplePreview(*vae, 1)(latents), SamplePreview(*vae)(latents)), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Autoencoders, PreviewOfLatents, testing::Values("plain", "deep", "bare"));

}  // namespace
}  // namespace linnet
