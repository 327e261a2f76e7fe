// The text-to-image transformer: what diffusers computes, from either kind of names; training; 8 bits.
#include "models/pixart.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/random.h"
#include "core/tape.h"
#include "diffusion/samplers.h"
#include "io/safetensors.h"
#include "pipeline/forward.h"
#include "store/model_file.h"
#include "store/pixart_file.h"
#include "support/compare.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path dumps = LINNET_TEST_DATA "/reference";

fs::path weights_of(const std::string& name) { return dumps / ("pixart_" + name + ".model.safetensors"); }

// The folder that diffusers would write.
void make_folder(const fs::path& folder, const std::string& name) {
  fs::create_directories(folder);
  fs::copy_file(weights_of(name), folder / "diffusion_pytorch_model.safetensors");
  std::ofstream(folder / "config.json") << SafetensorsFile::open(weights_of(name)).metadata().at("config");
}

class PixArtReference : public testing::TestWithParam<std::string> {
 protected:
  PixArtReference() { make_folder(folder_ / "transformer", GetParam()); }
  double error(const PixArt& model) const {
    return test::relative_error(forward_file(model, io_), io_.tensor("out"));
  }

  TemporaryFolder folder_;
  SafetensorsFile io_ = SafetensorsFile::open(dumps / ("pixart_" + GetParam() + ".io.safetensors"));
};

TEST_P(PixArtReference, ComputesWhatDiffusersDoes) {
  const LoadedPixArt loaded = load_pixart(folder_.path());  // a pipeline's folder
  EXPECT_LT(error(*loaded.model), 1e-5);
  nn::freeze(*loaded.model);
  EXPECT_LT(error(*loaded.model), 1e-5);
  loaded.model->set_product_dtype(DType::bf16);
  EXPECT_LT(error(*loaded.model), 2e-2);
  loaded.model->set_product_dtype(DType::i8);
  EXPECT_LT(error(*loaded.model), 6e-2);
}

TEST_P(PixArtReference, GivesTheSameWhateverSharesItsBatch) {
  const LoadedPixArt loaded = load_pixart(folder_.path());
  const Tensor text = io_.tensor("text");
  const int64_t width = text.size(2), tokens = text.size(1);
  const Tensor states = text.reshape({3 * tokens, width}).rows(2 * tokens, 2 * tokens + 4);  // of which 4 count
  const Tensor t = io_.tensor("t");
  const Tensor out = loaded.model->forward(io_.tensor("x").rows(2, 3), t.rows(2, 3), {states, {0, 4}});
  EXPECT_LT(test::relative_error(out, io_.tensor("out").rows(2, 3)), 1e-5);
}

TEST_P(PixArtReference, ItsConfigurationSurvivesItsOwnFile) {
  const LoadedPixArt loaded = load_pixart(folder_.path());
  const fs::path path = folder_ / "own.safetensors";
  write_safetensors(path, values_of(nn::all_parameters(*loaded.model), DType::f32),
                    {{config_key, to_json(loaded.model->config())}});
  const LoadedPixArt again = load_pixart(path);
  EXPECT_EQ(again.model->config(), loaded.model->config());
  EXPECT_LT(error(*again.model), 1e-5);
}

// PixArt's own code samples on another grid than diffusers.
TEST(PixArtSampling, FollowsTheFractionalGrid) {
  const TemporaryFolder folder;
  make_folder(folder.path(), "sigma");
  const LoadedPixArt loaded = load_pixart(folder.path());
  const auto io = SafetensorsFile::open(dumps / "pixart_sigma.io.safetensors");
  const Tensor text = io.tensor("text"), mask = io.tensor("text_mask");
  const Denoiser model = [&](const Tensor& x, const Tensor& t) {
    TextStates texts{Tensor::empty({12, 20}), {0, 7, 8, 12}};
    for (int64_t i = 0, at = 0; i < mask.numel(); ++i)
      if (mask.data<int64_t>()[i] == 1) {
        std::copy_n(text.data<float>() + i * 20, 20, texts.states.mutable_data<float>() + at * 20);
        ++at;
      }
    return loaded.model->forward(x, t, texts);
  };
  for (const int steps : {6, 12}) {
    const Tensor expected = io.tensor(fmt::format("fractional.{}", steps));
    const Tensor painted =
        sample_dpmpp_2m(model, io.tensor("x"), NoiseSchedule::linear(), steps, {}, TimeGrid::fractional);
    EXPECT_LT(test::relative_error(painted, expected), 1e-4) << steps;
  }
}

INSTANTIATE_TEST_SUITE_P(PixArt, PixArtReference, testing::Values("sigma", "alpha", "lit"),
                         [](const auto& tested) { return tested.param; });

TEST(PixArtFile, ShapesTellTheConfiguration) {
  const TemporaryFolder folder;
  for (const char* name : {"sigma", "alpha", "lit"}) make_folder(folder / name, name);
  PixArtConfig expected;
  expected.sample_size = 16;
  expected.hidden_size = 24;
  expected.depth = 2;
  expected.num_heads = expected.num_cross_heads = 3;
  expected.caption_channels = 20;
  expected.interpolation = 2;
  expected.null_caption = false;
  EXPECT_EQ(load_pixart(folder / "sigma").model->config(), expected);
  expected.sample_size = 8;
  expected.interpolation = 1;
  PixArtConfig lit = expected;
  lit.mixer = nn::Mixer::lit;
  lit.num_heads = 2;
  EXPECT_EQ(load_pixart(folder / "lit").model->config(), lit);
  expected.micro_conditions = true;
  expected.caption_tokens = 120;
  EXPECT_EQ(load_pixart(folder / "alpha").model->config(), expected);
}

// The original's .pth: names of its own, positions and the embedding of no text beside the weights.
class PixArtsOwnFile : public testing::Test {
 protected:
  PixArtsOwnFile() {
    const auto file = SafetensorsFile::open(weights_of("lit"));
    for (const std::string& name : file.names()) tensors_.emplace_back(name, file.tensor(name));
    tensors_.emplace_back("y_embedder.y_embedding", Tensor::zeros({120, 20}));
  }
  LoadedPixArt load(const Shape& positions, const std::map<std::string, std::string>& metadata = {}) const {
    NamedTensors tensors = tensors_;
    tensors.emplace_back("pos_embed", Tensor::zeros(positions));
    write_safetensors(folder_ / "p.safetensors", tensors, metadata);
    return load_pixart(folder_ / "p.safetensors");
  }

  TemporaryFolder folder_;
  NamedTensors tensors_;
};

TEST_F(PixArtsOwnFile, PositionsAndTheEmbeddingOfNoTextTellSizeAndTokens) {
  const LoadedPixArt loaded = load({1, 256, 24});
  EXPECT_EQ(loaded.model->config().sample_size, 32);
  EXPECT_EQ(loaded.model->config().interpolation, 1);  // α at 256 pixels
  EXPECT_EQ(loaded.model->config().caption_tokens, 120);
  EXPECT_EQ(loaded.model->null_text().states.size(0), 120);
}

TEST_F(PixArtsOwnFile, NothingButTheShapeIsBelievedOfTheSize) {
  for (const char* lie : {"99999999999999999999999", "no number", "-1", ""})
    EXPECT_EQ(
        load({1, 256, 24}, {{"pixart.sample_tokens", lie}, {"sample_size", lie}}).model->config().sample_size,
        32);
  test::expect_refused("pos_embed has 255 tokens, which make no square", [&] { load({1, 255, 24}); });
  test::expect_refused("'pos_embed' of shape (256, 24)", [&] { load({256, 24}); });
  test::expect_refused("'pos_embed' of shape (1, 0, 24)", [&] { load({1, 0, 24}); });
}

TEST(PixArtFile, WhatIsNoTextToImageTransformerIsRefused) {
  test::expect_refused("not the weights of a text-to-image",
                       [] { load_pixart(dumps / "dit_lit.model.safetensors"); });
  const auto file = SafetensorsFile::open(weights_of("sigma"));
  const TemporaryFolder folder;
  NamedTensors tensors;
  for (const std::string& name : file.names())
    if (name != "transformer_blocks.1.attn2.to_k.bias") tensors.emplace_back(name, file.tensor(name));
  write_safetensors(folder / "a", tensors);
  test::expect_refused("'transformer_blocks.1.attn2.to_k.bias' is missing", [&] { load_pixart(folder / "a"); });
  tensors.emplace_back("transformer_blocks.1.attn2.to_k.bias", Tensor::zeros({24}));
  tensors.emplace_back("surplus", Tensor::zeros({24}));
  write_safetensors(folder / "b", tensors);
  test::expect_refused("'surplus' has no place", [&] { load_pixart(folder / "b"); });
}

// Every parameter learns, and with recomputation the gradients are the same.
TEST(PixArtTraining, GradientsReachEveryParameter) {
  PixArtConfig config;
  config.sample_size = 8;
  config.hidden_size = 24;
  config.depth = 2;
  config.num_heads = 2;
  config.num_cross_heads = 3;
  config.caption_channels = 12;
  config.caption_tokens = 5;
  config.micro_conditions = true;
  config.null_caption = false;
  config.mixer = nn::Mixer::lit;
  const auto gradients = [&](bool checkpointing) {
    PixArt model(config);
    model.visit("", [](const std::string& name, nn::Parameter& p) {
      p.value = Generator(nn::hash_name(name)).normal(p.shape);
      for (float& v : std::span(p.value.mutable_data<float>(), static_cast<size_t>(p.value.numel()))) v *= 0.1f;
      p.value.set_requires_grad(true);
    });
    model.set_checkpointing(checkpointing);
    Generator generator(3);
    const Tensor x = generator.normal({2, 4, 8, 8});
    const TextStates texts{generator.normal({7, 12}), {0, 5, 7}};
    Tape tape;
    const Tensor out = model.forward(x, Tensor::from<float>({10, 900}), texts);
    tape.backward(out, generator.normal(out.shape()));
    std::map<std::string, Tensor> result;
    model.visit("", [&](const std::string& name, nn::Parameter& p) { result[name] = p.value.grad(); });
    return result;
  };
  const auto plain = gradients(false), again = gradients(true);
  for (const auto& [name, gradient] : plain) {
    ASSERT_TRUE(gradient.defined()) << name;
    EXPECT_GT(test::relative_error(gradient, Tensor::zeros(gradient.shape())), 0) << name;
    EXPECT_LT(test::relative_error(again.at(name), gradient), 1e-5) << name;
  }
}

}  // namespace
}  // namespace linnet
