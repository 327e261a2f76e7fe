// The text-to-image transformer in training: gradients against PyTorch's, that every parameter has one, and how
// it starts.
#include <gtest/gtest.h>

#include <cmath>

#include "core/random.h"
#include "core/tape.h"
#include "ops/reduce.h"
#include "pipeline/pixart_models.h"
#include "store/pixart_file.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using test::dumps, test::make_folder, test::small_config;

// The rows of (texts, tokens, width) that count, one text after the other.
Tensor rows_of(const Tensor& texts, const std::vector<int64_t>& lengths) {
  const int64_t tokens = texts.size(1), width = texts.size(2);
  std::vector<float> rows;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const float* first = texts.data<float>() + static_cast<int64_t>(i) * tokens * width;
    rows.insert(rows.end(), first, first + lengths[i] * width);
  }
  return Tensor::from(rows).reshape({static_cast<int64_t>(rows.size()) / width, width});
}

TEST(PixArtTraining, GradientsAreThoseOfPyTorch) {
  const TemporaryFolder folder;
  make_folder(folder / "lit", "lit");  // whose configuration says where tokens lie
  const LoadedPixArt loaded = load_pixart(folder / "lit");
  const auto io = SafetensorsFile::open(dumps / "pixart_lit.io.safetensors"),
             expected = SafetensorsFile::open(dumps / "pixart_lit.gradients.safetensors");
  const auto parameters = nn::learned_parameters(*loaded.model);
  for (const auto& [name, parameter] : parameters) {
    parameter->value = parameter->value.clone();
    parameter->value.set_requires_grad(true);
  }
  const std::vector<int64_t> lengths{7, 1, 4};
  TextStates texts{rows_of(io.tensor("text"), lengths), {0, 7, 8, 12}};
  texts.states.set_requires_grad(true);
  Tape tape;
  const Tensor out = loaded.model->forward(io.tensor("x"), io.tensor("t"), texts);
  tape.backward(out, expected.tensor("weight"));
  for (const auto& [name, parameter] : parameters)
    EXPECT_LT(test::relative_error(parameter->value.grad(), expected.tensor("grad." + name)), 1e-4) << name;
  EXPECT_LT(test::relative_error(texts.states.grad(), rows_of(expected.tensor("grad.text"), lengths)), 1e-4);
}

// Every parameter learns, and with recomputation the gradients are the same. (Weights are large enough for the
// norms' gradients not to drown in rounding, with oneDNN 2 and 3.)
void expect_all_learn(const PixArtConfig& config) {
  const auto gradients = [&](bool checkpointing) {
    PixArt model(config);
    model.visit("", [](const std::string& name, nn::Parameter& p) {
      p.value = Generator(nn::hash_name(name)).normal(p.shape);
      for (float& v : std::span(p.value.mutable_data<float>(), static_cast<size_t>(p.value.numel())))
        v *= 0.12f;
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

TEST(PixArtTraining, GradientsReachEveryParameter) {
  PixArtConfig config = small_config();
  config.mixer = nn::Mixer::lit;
  expect_all_learn(config);
}

// Drawn weights are smaller the more of them add up, so that a narrow model hears its text as well as a wide
// one.
TEST(PixArtTraining, NarrowLayersStartAsLoudAsWideOnes) {
  const auto loudness = [](int64_t width, int64_t caption_channels) {
    PixArtConfig config;
    config.hidden_size = width;
    config.caption_channels = caption_channels;
    config.depth = config.num_heads = config.num_cross_heads = 1;
    PixArt model(config);
    nn::initialize(model, 1);
    std::map<std::string, double> result;
    for (const auto& [name, parameter] : nn::learned_parameters(model))
      if (name.starts_with("y_embedder.y_proj.fc") && name.ends_with("weight"))
        result[name] =
            std::sqrt(ops::sum_of_squares(parameter->value) / static_cast<double>(parameter->shape[0]));
    return result;
  };
  const auto narrow = loudness(64, 32), published = loudness(1152, 4096);
  ASSERT_EQ(narrow.size(), 2u);
  for (const auto& [name, loud] : narrow) EXPECT_NEAR(loud / published.at(name), 1, 0.1) << name;
}

TEST(PixArtTraining, GradientsReachNormsAndCompression) {
  PixArtConfig config = small_config();
  config.qk_norm = true;
  config.kv_compression = {2, 2};
  expect_all_learn(config);
}

}  // namespace
}  // namespace linnet
