// Latent models: linnet generate --vae, linnet forward --part, linnet info of an autoencoder.
#include "models/vae.h"

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class LatentModel : public testing::Test {
 protected:
  LatentModel() {
    DiTConfig config = small_config();
    config.in_channels = 4;
    config.input_size = 8;
    write_small_model(folder_ / "small.safetensors", config, false);
    make_vae("plain");
  }
  // As diffusers lays it out.
  void make_vae(const std::string& name) {
    copy_model("vae_" + name, folder_ / name, "diffusion_pytorch_model.safetensors");
  }
  Result generate(const Arguments& more) const {
    Arguments all = {"generate", "--model", "small.safetensors", "--steps", "3", "--seed", "5", "-c", "7"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }

  TemporaryFolder folder_;
};

TEST_F(LatentModel, PaintsWithItsAutoencoder) {
  ASSERT_TRUE(succeeded(generate({"--vae", "plain", "-o", "a.png", "--latents-out", "l.safetensors"})));
  const Image image = read_image(folder_ / "a.png");
  EXPECT_EQ(image.width, 32);
  EXPECT_EQ(image.height, 32);
  const auto text = read_image_notes(folder_ / "a.png").text;
  EXPECT_EQ(text.at("vae"), "plain");
  EXPECT_EQ(text.at("vae-hash").size(), 16u);
  const Result info = run({"info", "a.png"}, {folder_.path()});
  EXPECT_NE(info.out.find("--vae plain --memory 4G"), std::string::npos) << info.out;
  ASSERT_TRUE(succeeded(generate({"--vae", "plain", "-o", "b.png"})));
  EXPECT_EQ(contents(folder_ / "a.png"), contents(folder_ / "b.png"));

  // What it decoded are the latents that it wrote, unscaled.
  Tensor latents = SafetensorsFile::open(folder_ / "l.safetensors").tensor("latents").clone();
  for (int64_t i = 0; i < latents.numel(); ++i)
    latents.mutable_data<float>()[i] *= static_cast<float>(1 / 0.18215);
  write_safetensors(folder_ / "in.safetensors", {{"latent", latents}});
  ASSERT_TRUE(succeeded(run({"forward", "plain", "in.safetensors", "-o", "out.safetensors", "--part",
                             "vae.decoder", "--dtype", "auto"},
                            {folder_.path()})));
  const Tensor sample = SafetensorsFile::open(folder_ / "out.safetensors").tensor("sample");
  EXPECT_EQ(to_image(sample.reshape({3, 32, 32})), image);
}

// The whole way from noise to pixels, as PyTorch and diffusers go it (tests/reference/make_vae_dumps.py).
TEST_F(LatentModel, PaintsWhatPyTorchPaints) {
  const std::string dump = data_file("reference/vae_pipeline.safetensors");
  const auto expected = SafetensorsFile::open(dump);
  ASSERT_TRUE(succeeded(run(
      {"generate", "-m", data_file("reference/sampling.model.safetensors"), "--vae", "plain", "--noise", dump,
       "-c", "0,2,1", "--sampler", "ddim", "--steps", "10", "--cfg", "3", "--dtype", "f32", "-o", "p.png"},
      {folder_.path()})));
  const Tensor pictures = expected.tensor("pictures");
  for (int64_t i = 0; i < 3; ++i) {
    const Image image = read_image(folder_ / fmt::format("p-000{}.png", i + 1));
    const Tensor wanted = pictures.rows(i, i + 1);
    ASSERT_EQ(static_cast<int64_t>(image.rgb.size()), wanted.numel());
    int furthest = 0;
    for (size_t j = 0; j < image.rgb.size(); ++j)
      furthest = std::max(furthest, std::abs(image.rgb[j] - wanted.data<uint8_t>()[j]));
    EXPECT_LE(furthest, 2);
  }
}

TEST_F(LatentModel, PaintsTheSameInBands) {
  ASSERT_TRUE(succeeded(generate({"--vae", "plain", "--dtype", "f32", "-o", "a.png"})));
  ASSERT_TRUE(succeeded(generate({"--vae", "plain", "--dtype", "f32", "--memory", "1", "-o", "b.png"})));
  const Image a = read_image(folder_ / "a.png"), b = read_image(folder_ / "b.png");
  ASSERT_EQ(a.rgb.size(), b.rgb.size());
  int furthest = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) furthest = std::max(furthest, std::abs(a.rgb[i] - b.rgb[i]));
  EXPECT_LE(furthest, 1);
}

TEST_F(LatentModel, TakesTheAutoencoderOfItsFolder) {
  fs::create_directories(folder_ / "pipeline" / "transformer");
  fs::rename(folder_ / "small.safetensors", folder_ / "pipeline" / "transformer" / "model.safetensors");
  fs::rename(folder_ / "plain", folder_ / "pipeline" / "vae");
  EXPECT_TRUE(succeeded(run({"generate", "-m", "pipeline", "--steps", "2", "-n", "3", "--grid", "-o", "a.png"},
                            {folder_.path()})));
  const Result info = run({"info", "a.png"}, {folder_.path()});
  EXPECT_NE(info.out.find("--model pipeline"), std::string::npos) << info.out;
  EXPECT_EQ(info.out.find("--vae"), std::string::npos) << "it is found with the model: " << info.out;

  // A folder of older pictures, which name it, is gone on with; one of another autoencoder is not.
  const auto paint_folder = [&] {
    return run({"generate", "-m", "pipeline", "--steps", "2", "-n", "3", "-o", "s/"}, {folder_.path()});
  };
  ASSERT_TRUE(succeeded(paint_folder()));
  const auto rewrite = [&](const char* key, const char* value) {
    const fs::path file = folder_ / "s/000000.png";
    ImageText text = read_image_notes(file).text;
    text[key] = value;
    write_image(file, read_image(file), text);
  };
  rewrite("vae", "vae");
  EXPECT_NE(paint_folder().out.find("3 were there"), std::string::npos);
  rewrite("vae-hash", "0123456789abcdef");
  EXPECT_TRUE(failed(paint_folder(), 1, "painted otherwise"));
}

TEST_F(LatentModel, WrongUsesAreRefused) {
  make_vae("bare");
  EXPECT_TRUE(failed(generate({"-o", "a.png"}), 2, "--vae"));
  EXPECT_TRUE(failed(generate({"-o", "a.png", "--vae", "none"}), 1, "none"));
  EXPECT_TRUE(failed(generate({"-o", "a.png", "--vae", "small.safetensors"}), 1, "no autoencoder"));
  EXPECT_TRUE(failed(generate({"-o", "a.png", "--vae", "bare"}), 2, "16 channels"));
  EXPECT_TRUE(failed(generate({"-o", "a.png", "--vae", "plain", "--memory", "lots"}), 2, "lots"));
  EXPECT_TRUE(failed(
      run({"generate", "-c", "red-star", "--steps", "1", "--vae", "plain", "-o", "a.png"}, {folder_.path()}), 2,
      "pixels"));
  EXPECT_FALSE(fs::exists(folder_ / "a.png"));
}

TEST_F(LatentModel, ForwardRunsBothHalvesOfAnAutoencoder) {
  const auto io = SafetensorsFile::open(data_file("reference/vae_plain.io.safetensors"));
  const std::string input = data_file("reference/vae_plain.io.safetensors");
  ASSERT_TRUE(succeeded(
      run({"forward", "plain", input, "-o", "e.safetensors", "--part", "vae.encoder"}, {folder_.path()})));
  ASSERT_TRUE(succeeded(
      run({"forward", "plain", input, "-o", "d.safetensors", "--part", "vae.decoder"}, {folder_.path()})));
  const auto encoded = SafetensorsFile::open(folder_ / "e.safetensors");
  EXPECT_LT(relative_error(encoded.tensor("mean"), io.tensor("mean")), 1e-5);
  EXPECT_LT(relative_error(encoded.tensor("logvar"), io.tensor("logvar")), 1e-5);
  EXPECT_LT(
      relative_error(SafetensorsFile::open(folder_ / "d.safetensors").tensor("sample"), io.tensor("decoded")),
      1e-5);
  EXPECT_TRUE(
      failed(run({"forward", "plain", input, "-o", "x", "--part", "vae"}, {folder_.path()}), 2, "vae.encoder"));
  write_safetensors(folder_ / "odd.safetensors", {{"sample", Tensor::zeros({1, 3, 9, 9})}});
  EXPECT_TRUE(
      failed(run({"forward", "plain", "odd.safetensors", "-o", "x", "--part", "vae.encoder"}, {folder_.path()}),
             1, "odd.safetensors"));
  EXPECT_TRUE(
      failed(run({"forward", "plain", "odd.safetensors", "-o", "x", "--part", "vae.decoder"}, {folder_.path()}),
             1, "latent"));
}

TEST_F(LatentModel, InfoSaysWhatAnAutoencoderIs) {
  const Result info = run({"info", "plain"}, {folder_.path()});
  EXPECT_TRUE(succeeded(info));
  EXPECT_NE(info.out.find("Autoencoder"), std::string::npos) << info.out;
  EXPECT_NE(info.out.find("4 channels"), std::string::npos) << info.out;
}

}  // namespace
}  // namespace linnet::test
