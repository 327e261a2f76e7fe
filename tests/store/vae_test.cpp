// The autoencoder: what diffusers computes, from every kind of file, whole and in bands.
#include "models/vae.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/memory.h"
#include "core/random.h"
#include "io/safetensors.h"
#include "models/vae_blocks.h"
#include "ops/pixels.h"
#include "store/vae_file.h"
#include "support/compare.h"
#include "support/processor.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path dumps = LINNET_TEST_DATA "/reference";

fs::path weights_of(const std::string& name) { return dumps / ("vae_" + name + ".model.safetensors"); }

// The folder that diffusers would write.
void make_folder(const fs::path& folder, const std::string& name) {
  fs::create_directories(folder);
  fs::copy_file(weights_of(name), folder / "diffusion_pytorch_model.safetensors");
  std::ofstream(folder / "config.json") << SafetensorsFile::open(weights_of(name)).metadata().at("config");
}

std::unique_ptr<Vae> load(const std::string& name) {
  const TemporaryFolder folder;
  make_folder(folder / "vae", name);
  return load_vae(folder / "vae");
}

class VaeReference : public testing::TestWithParam<std::string> {
 protected:
  SafetensorsFile io_ = SafetensorsFile::open(dumps / ("vae_" + GetParam() + ".io.safetensors"));
  std::unique_ptr<Vae> model_ = load(GetParam());
};

TEST_P(VaeReference, EncodesAsDiffusersDoes) {
  const LatentMoments moments = model_->encode(io_.tensor("sample"));
  EXPECT_LT(test::relative_error(moments.mean, io_.tensor("mean")), 1e-5);
  EXPECT_LT(test::relative_error(moments.logvar, io_.tensor("logvar")), 1e-5);
}

TEST_P(VaeReference, DecodesAsDiffusersDoes) {
  EXPECT_LT(test::relative_error(model_->decode(io_.tensor("latent")), io_.tensor("decoded")), 1e-5);
}

TEST_P(VaeReference, DecodesTheSameInBands) {
  EXPECT_LT(test::relative_error(model_->decode(io_.tensor("latent"), 1), io_.tensor("decoded")), 1e-5);
}

TEST_P(VaeReference, IsCloseInBf16) {
  LINNET_NEED_BF16_PRODUCTS();
  model_->set_product_dtype(DType::bf16);
  EXPECT_LT(test::relative_error(model_->encode(io_.tensor("sample")).mean, io_.tensor("mean")), 3e-2);
  EXPECT_LT(test::relative_error(model_->decode(io_.tensor("latent")), io_.tensor("decoded")), 3e-2);
}

INSTANTIATE_TEST_SUITE_P(Vae, VaeReference, testing::Values("plain", "deep", "bare"),
                         [](const auto& tested) { return tested.param; });

TEST(VaeFile, NamesOfLatentDiffusionAreUnderstood) {
  const auto io = SafetensorsFile::open(dumps / "vae_plain.io.safetensors");
  const TemporaryFolder folder;
  make_folder(folder / "vae", "plain");
  fs::remove(folder / "vae" / "diffusion_pytorch_model.safetensors");
  fs::copy_file(dumps / "vae_plain.ldm.safetensors", folder / "vae" / "diffusion_pytorch_model.safetensors");
  const auto model = load_vae(folder.path());  // a pipeline's folder
  EXPECT_LT(test::relative_error(model->decode(io.tensor("latent")), io.tensor("decoded")),
            1e-2);  // it is in f16
  EXPECT_LT(test::relative_error(model->encode(io.tensor("sample")).mean, io.tensor("mean")), 1e-2);
}

// A file with other names than it was saved with.
void rename_into(const fs::path& path, const fs::path& source,
                 const std::function<std::string(std::string)>& rename) {
  const auto file = SafetensorsFile::open(source);
  NamedTensors tensors;
  for (const std::string& name : file.names()) tensors.push_back({rename(name), file.tensor(name)});
  write_safetensors(path, tensors);
}

VaeConfig wide_config() {
  VaeConfig config;
  config.block_out_channels = {32, 64};
  config.layers_per_block = 1;
  return config;
}

// A model that a file without a configuration can tell: 32 groups.
fs::path save_wide(const TemporaryFolder& folder) {
  Vae model(wide_config());
  nn::initialize(model, 1);
  NamedTensors tensors;
  model.visit("", [&](const std::string& name, nn::Parameter& p) { tensors.push_back({name, p.value}); });
  write_safetensors(folder / "wide.safetensors", tensors);
  return folder / "wide.safetensors";
}

TEST(VaeFile, ASingleFileTellsItsSizes) {
  const TemporaryFolder folder;
  EXPECT_EQ(load_vae(save_wide(folder))->config(), wide_config());
}

TEST(VaeFile, IsFoundInsideAWholeCheckpoint) {
  const TemporaryFolder folder;
  rename_into(folder / "sd.safetensors", save_wide(folder),
              [](const std::string& name) { return "first_stage_model." + name; });
  EXPECT_EQ(load_vae(folder / "sd.safetensors")->config(), wide_config());
}

// Stable Diffusion's and SDXL's differ in nothing but what lies beside them.
TEST(VaeFile, ItsScalingIsToldOrSaidToBeAssumed) {
  const TemporaryFolder folder;
  EXPECT_NE(note_on_scaling(save_wide(folder)).find("by 0.18215, as Stable Diffusion's"), std::string::npos);
  make_folder(folder / "vae", "plain");
  EXPECT_EQ(note_on_scaling(folder / "vae"), "");
  EXPECT_EQ(note_on_scaling(folder / "vae/diffusion_pytorch_model.safetensors"), "");
  const auto file = SafetensorsFile::open(folder / "wide.safetensors");
  NamedTensors tensors = {{"conditioner.embedders.0.weight", Tensor::zeros({1})}};
  for (const std::string& name : file.names())
    tensors.push_back({"first_stage_model." + name, file.tensor(name)});
  write_safetensors(folder / "sdxl.safetensors", tensors);
  EXPECT_EQ(load_vae(folder / "sdxl.safetensors")->config().scaling_factor, 0.13025);
  EXPECT_EQ(note_on_scaling(folder / "sdxl.safetensors"), "");
  VaeConfig wide = wide_config();
  wide.latent_channels = 16;
  Vae other(wide);
  nn::initialize(other, 1);
  tensors.clear();
  other.visit("", [&](const std::string& name, nn::Parameter& p) { tensors.push_back({name, p.value}); });
  write_safetensors(folder / "flux.safetensors", tensors);
  EXPECT_NE(
      test::refusal([&] { load_vae(folder / "flux.safetensors"); }).find("latents of 16 channels are scaled"),
      std::string::npos);
}

TEST(VaeFile, OldNamesOfAttentionAreUnderstood) {
  const TemporaryFolder folder;
  rename_into(folder / "old.safetensors", save_wide(folder), [](std::string name) {
    for (const auto& [now, before] : {std::pair<std::string, std::string>{"to_q", "query"},
                                      {"to_k", "key"},
                                      {"to_v", "value"},
                                      {"to_out.0", "proj_attn"}})
      if (const size_t place = name.find("attentions.0." + now); place != std::string::npos)
        name.replace(place + 13, now.size(), before);
    return name;
  });
  EXPECT_EQ(load_vae(folder / "old.safetensors")->config(), wide_config());
}

TEST(VaeFile, RefusesWhatIsNoAutoencoder) {
  const TemporaryFolder folder;
  EXPECT_NE(test::refusal([] { load_vae(dumps / "dit_lit.model.safetensors"); }).find("this is no autoencoder"),
            std::string::npos);
  make_folder(folder / "other", "plain");
  std::ofstream(folder / "other" / "config.json") << R"({"_class_name": "AutoencoderDC"})";
  EXPECT_NE(test::refusal([&] { load_vae(folder / "other"); }).find("AutoencoderDC"), std::string::npos);
  std::ofstream(folder / "other" / "config.json") << R"({"block_out_channels": [8, 16], "norm_num_groups": 4})";
  const std::string wrong = test::refusal([&] { load_vae(folder / "other"); });
  EXPECT_NE(wrong.find("diffusion_pytorch_model.safetensors"), std::string::npos) << wrong;
  for (const char* text : {"", "[]", "{\"act_fn\": \"relu\"}", "{\"block_out_channels\": [7]}",
                           "{\"block_out_channels\": []}", "{\"latent_channels\": -1}",
                           "{\"scaling_factor\": \"x\"}", "{\"up_block_types\": [\"AttnUpDecoderBlock2D\"]}"}) {
    std::ofstream(folder / "other" / "config.json") << text;
    EXPECT_NE(test::refusal([&] { load_vae(folder / "other"); }), "accepted") << text;
  }
}

TEST(Vae, ItsConfigurationComesBack) {
  VaeConfig config = wide_config();
  config.use_quant_conv = false;
  config.shift_factor = 0.25;
  EXPECT_EQ(vae_config_from_json(to_json(config)), config);
}

TEST(Vae, RefusesPicturesThatDoNotFit) {
  const auto model = load("plain");
  EXPECT_THROW(model->encode(Tensor::zeros({1, 3, 24, 26})), Error);
  EXPECT_THROW(model->encode(Tensor::zeros({1, 4, 24, 24})), Error);
  EXPECT_THROW(model->decode(Tensor::zeros({1, 3, 8, 8})), Error);
}

// As diffusers' DiagonalGaussianDistribution, so that what is drawn stays finite.
TEST(Vae, LogarithmsOfVariancesLieBetweenMinus30And20) {
  VaeConfig config = wide_config();
  config.use_quant_conv = false;
  Vae model(config);
  nn::initialize(model, 1);
  model.visit("", [](const std::string& name, nn::Parameter& p) {
    if (name != "encoder.conv_out.bias") return;
    p.value.mutable_data<float>()[4] = 100;  // behind the means of four channels
    p.value.mutable_data<float>()[5] = -100;
  });
  const Tensor logvar = model.encode(Tensor::zeros({1, 3, 8, 8})).logvar;
  for (int64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(logvar.data<float>()[i], 20);
    EXPECT_EQ(logvar.data<float>()[16 + i], -30);
    EXPECT_LT(std::abs(logvar.data<float>()[32 + i]), 20);
  }
}

TEST(Vae, DrawsFromWhatItEncoded) {
  const LatentMoments moments{Tensor::full({1, 1, 1, 2}, 3), Tensor::full({1, 1, 1, 2}, 2 * std::log(0.5f))};
  const Tensor drawn = moments.sample(Tensor::full({1, 1, 1, 2}, 4));
  EXPECT_NEAR(drawn.data<float>()[0], 5.0f, 1e-6);
}

// Bands of 8 rows and more, where norms see all of them, on a picture of many bands.
TEST(Vae, ATallPictureIsTheSameInBands) {
  VaeConfig config = wide_config();
  config.block_out_channels = {32, 64, 64};
  config.mid_block_add_attention = false;
  Vae model(config);
  nn::initialize(model, 3);
  nn::freeze(model);
  const Tensor latent = Generator(1).normal({1, 4, 64, 500});
  const auto decode = [&](size_t limit, size_t& taken) {
    const size_t before = memory_stats().in_use;
    reset_peak_memory();
    const Tensor picture = model.decode(latent, limit);
    taken = memory_stats().peak - before;
    return picture;
  };
  size_t taken_whole = 0, taken_in_bands = 0;
  const Tensor whole = decode(0, taken_whole), bands = decode(1, taken_in_bands);
  EXPECT_LT(test::relative_error(bands, whole), 1e-5);
  EXPECT_LT(static_cast<double>(taken_in_bands), 0.6 * static_cast<double>(taken_whole));
}

TEST(Vae, UpsamplingIsThatOfRepeatedPixels) {
  nn::UpsampleConv conv(3);
  nn::Conv2d plain(3, 3, 3);
  nn::ParameterList parameters;
  conv.visit("", [&](const std::string&, nn::Parameter& p) {
    p.value = Generator(1).normal(p.shape);
    (p.shape.rank() == 4 ? plain.weight : plain.bias).value = p.value;
  });
  const Tensor x = Generator(2).normal({2, 5, 4, 3});
  Tensor repeated = Tensor::empty({2, 10, 8, 3});
  for (const int64_t row : {0, 1})
    for (const int64_t column : {0, 1}) ops::interleave(x, row, column, repeated);
  const Tensor expected = plain.forward(repeated), found = conv.forward(x);
  EXPECT_LT(test::relative_error(found, expected), 1e-6);
  const vae::RowSource source = vae::upsampled(vae::RowSource::of(x.rows(0, 1)), conv);
  for (int64_t begin = 0; begin < 10; ++begin)
    for (int64_t end = begin + 1; end <= 10; ++end)
      EXPECT_LT(test::relative_error(source.rows(begin, end), ops::crop_rows(expected.rows(0, 1), begin, end)),
                1e-6)
          << begin << ".." << end;
}

}  // namespace
}  // namespace linnet
