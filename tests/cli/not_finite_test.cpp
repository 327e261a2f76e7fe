// Numbers that are not finite become no picture: one sentence says where they may come from.
#include <limits>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/safetensors.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// The file with one number of one of its tensors replaced.
void spoil(const fs::path& path, const std::string& name, float by = nan) {
  const auto file = SafetensorsFile::open(path);
  NamedTensors tensors;
  for (const std::string& each : file.names()) {
    Tensor tensor = file.tensor(each);
    if (each == name) {
      tensor = tensor.to(DType::f32).clone();
      tensor.mutable_data<float>()[0] = by;
    }
    tensors.emplace_back(each, tensor);
  }
  write_safetensors(path, tensors, file.metadata());
}

class NotFinite : public testing::Test {
 protected:
  Result paint(const Arguments& what) const {
    Arguments all = {"generate", "--steps", "2", "--seed", "5", "-o", "p.png"};
    all.insert(all.end(), what.begin(), what.end());
    return run(all, {folder_.path()});
  }
  bool is_painted() const { return fs::exists(folder_ / "p.png"); }

  TemporaryFolder folder_;
};

TEST_F(NotFinite, ADamagedWeightIsNoBlackPicture) {
  write_small_model(folder_ / "m.safetensors");
  spoil(folder_ / "m.safetensors", "x_embedder.proj.bias");
  for (const char* sampler : {"ddpm", "ddim", "dpm++"})
    EXPECT_TRUE(failed(paint({"-m", "m.safetensors", "--sampler", sampler, "--latents-out", "l"}), 1,
                       "what was painted is not finite (NaN or infinite): the model's weights"));
  EXPECT_EQ(listing(folder_.path()), std::vector<std::string>{"m.safetensors"});
}

TEST_F(NotFinite, GuidanceOutOfAllProportionIsNoBlackPicture) {
  write_small_model(folder_ / "m.safetensors");
  EXPECT_TRUE(failed(paint({"-m", "m.safetensors", "--cfg", "1e38", "--clip", "off"}), 1, "guidance scale"));
  EXPECT_FALSE(is_painted());
}

TEST_F(NotFinite, StartNoiseIsRefusedWhenItIsRead) {
  write_small_model(folder_ / "m.safetensors");
  for (const float value : {nan, std::numeric_limits<float>::infinity()}) {
    write_safetensors(folder_ / "n", {{"noise", Tensor::full({1, 3, 16, 16}, value)}});
    EXPECT_TRUE(failed(paint({"-m", "m.safetensors", "--noise", "n"}), 1, "n: tensor 'noise' holds"));
  }
  EXPECT_FALSE(is_painted());
}

TEST_F(NotFinite, EachPartOfATextToImageModelSaysSo) {
  const std::tuple<const char*, const char*, const char*> parts[] = {
      {"transformer/diffusion_pytorch_model.safetensors", "pos_embed.proj.bias", "the model's weights"},
      {"vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", "the autoencoder's weights"},
      {"text_encoder/model.safetensors", "encoder.final_layer_norm.weight", "the text encoder's weights"}};
  for (const auto& [file, tensor, sentence] : parts) {
    fs::remove_all(folder_ / "model");
    copy_text_model(folder_ / "model");
    spoil(folder_ / "model" / file, tensor);
    EXPECT_TRUE(failed(paint({"a star", "-m", "model", "--cache", "cache"}), 1, sentence));
    EXPECT_FALSE(is_painted());
  }
}

TEST_F(NotFinite, ACachedTextCountsAsNotThere) {
  copy_text_model(folder_ / "model");
  const Arguments what = {"a star", "-m", "model", "--cache", "cache"};
  ASSERT_TRUE(succeeded(paint(what)));
  const std::string first = contents(folder_ / "p.png");
  for (const auto& entry : fs::directory_iterator(folder_ / "cache")) spoil(entry.path(), "states");
  const Result again = paint(what);
  EXPECT_TRUE(succeeded(again));
  EXPECT_NE(again.out.find("2 of 2 encoded"), std::string::npos) << again.out;
  EXPECT_EQ(contents(folder_ / "p.png"), first);
}

TEST_F(NotFinite, LatentsAreNotStored) {
  const char* weights = "vae/diffusion_pytorch_model.safetensors";
  ASSERT_TRUE(
      succeeded(run({"data", "shapes", "pictures", "--count", "64", "--size", "32"}, {folder_.path()})));
  const auto encode = [&](const char* stored) {
    return run({"encode", "pictures", "--vae", "vae", "--size", "32", "--stored", stored, "-o", "l"},
               {folder_.path()});
  };
  copy_model("vae_plain", folder_ / "vae", "diffusion_pytorch_model.safetensors");
  spoil(folder_ / weights, "quant_conv.bias", 1e6f);
  EXPECT_TRUE(failed(encode("f16"), 1, "too large for f16; --stored f32 holds them"));
  EXPECT_TRUE(succeeded(encode("f32")));
  fs::remove_all(folder_ / "l");
  spoil(folder_ / weights, "encoder.conv_in.bias");
  EXPECT_TRUE(failed(encode("f32"), 1, "latents are not finite (NaN or infinite): the autoencoder's weights"));
  EXPECT_TRUE(listing(folder_ / "l").empty());
}

}  // namespace
}  // namespace linnet::test
