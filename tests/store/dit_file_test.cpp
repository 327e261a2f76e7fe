// Models as files: what is kept, and what tells weights apart.
#include "store/dit_file.h"

#include <gtest/gtest.h>

#include "store/t5_file.h"
#include "support/compare.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

class DiTFile : public testing::Test {
 protected:
  DiTFile() { nn::initialize(model_, 1); }
  TemporaryFolder folder_;
  DiT model_{test::tiny_dit()};
};

TEST_F(DiTFile, WhatTheModelPredictsComesBack) {
  for (const Prediction prediction : {Prediction::epsilon, Prediction::v, Prediction::x0}) {
    DiTConfig config = test::tiny_dit();
    config.prediction = prediction;
    DiT model(config);
    nn::initialize(model, 1);
    save_dit(folder_ / "m", model, DType::f32);
    EXPECT_EQ(load_dit(folder_ / "m").model->config(), config);
  }
  std::string json = to_json(test::tiny_dit());
  json.insert(json.size() - 1, R"(, "prediction": "x1")");
  EXPECT_THROW(dit_config_from_json(json), Error);
}

TEST_F(DiTFile, EveryMixerWorksFromBf16) {
  using nn::Mixer;
  for (const Mixer mixer : {Mixer::softmax, Mixer::linear, Mixer::lit, Mixer::focused, Mixer::focused_gelu}) {
    DiTConfig config = test::tiny_dit();
    config.mixer = mixer;
    DiT model(config);
    for (auto& [name, parameter] : nn::learned_parameters(model))
      parameter->value = Generator(nn::hash_name(name)).normal(parameter->shape).to(DType::bf16);
    save_dit(folder_ / "m", model, DType::bf16);
    const LoadedDiT loaded = load_dit(folder_ / "m");
    EXPECT_EQ(loaded.model->config(), config);
    const Tensor x = Generator(1).normal({2, 4, 8, 8}), t = Tensor::full({2}, 500.0f);
    const Tensor y = Tensor::from<int64_t>({0, 2});
    const Tensor again = loaded.model->forward(x, t, y);
    for (auto& [name, parameter] : nn::learned_parameters(model))
      parameter->value = parameter->value.to(DType::f32);
    EXPECT_LT(test::relative_error(again, model.forward(x, t, y)), 1e-6) << nn::name_of(mixer);
  }
}

TEST_F(DiTFile, ClassNamesComeBack) {
  save_dit(folder_ / "m", model_, DType::f32, {{"linnet.classes", R"(["a", "b", "c"])"}});
  EXPECT_EQ(load_dit(folder_ / "m").class_names, (std::vector<std::string>{"a", "b", "c"}));
  save_dit(folder_ / "m", model_, DType::f32);
  EXPECT_TRUE(load_dit(folder_ / "m").class_names.empty());
}

TEST_F(DiTFile, ClassNamesThatDoNotFitAreRefused) {
  for (const char* classes :
       {"", "7", "[1, 2, 3]", R"({"a": 1})", R"(["a", "b"])", R"(["a", "b", "c", "d"])"}) {
    save_dit(folder_ / "m", model_, DType::f32, {{"linnet.classes", classes}});
    EXPECT_THROW(load_dit(folder_ / "m"), Error) << classes;
  }
}

TEST_F(DiTFile, TheFingerprintIsOfTheWeightsAlone) {
  const std::string print = fingerprint(model_);
  save_dit(folder_ / "a", model_, DType::f32, {{"note", "x"}});
  save_dit(folder_ / "b", model_, DType::f32, {}, false);
  EXPECT_EQ(fingerprint(*load_dit(folder_ / "a").model), print);
  EXPECT_EQ(fingerprint(*load_dit(folder_ / "b").model), print);
  save_dit(folder_ / "c", model_, DType::bf16);
  EXPECT_NE(fingerprint(*load_dit(folder_ / "c").model), print);
}

TEST_F(DiTFile, OneBitChangesTheFingerprint) {
  const std::string print = fingerprint(model_);
  model_.visit("", [](const std::string& name, nn::Parameter& p) {
    if (name == "final_layer.linear.bias")
      static_cast<uint8_t*>(p.value.mutable_raw())[p.value.bytes() - 1] ^= 1;
  });
  EXPECT_NE(fingerprint(model_), print);
}

TEST(QuickFingerprint, SeesTheMiddleOfALargeTensorAndEveryScale) {
  nn::Parameter parameter({1000, 1000}, nn::Init::zero());
  parameter.value = Tensor::zeros(parameter.shape, DType::i8);
  parameter.scale = Tensor::full({1000, 1}, 1.0f);
  const auto print = [&] { return quick_fingerprint({{"w", &parameter}}); };
  const std::string before = print();
  parameter.scale.mutable_data<float>()[500] = 2;
  const std::string scaled = print();
  EXPECT_NE(scaled, before);
  std::fill_n(parameter.value.mutable_data<int8_t>() + 400'000, 200'000, int8_t{1});
  const std::string middle = print();
  EXPECT_NE(middle, scaled);
  parameter.value.mutable_data<int8_t>()[999'999] = 1;
  EXPECT_NE(print(), middle);
}

TEST(QuickFingerprint, OfATextEncoderSeesItsConfiguration) {
  T5Config config{.vocabulary = 16, .width = 8, .hidden = 16, .depth = 1, .heads = 2, .head_size = 4};
  const auto print = [&] {
    T5Encoder encoder(config);
    nn::initialize(encoder, 1);
    return quick_fingerprint(encoder);
  };
  const std::string before = print();
  EXPECT_EQ(print(), before);
  config.max_distance = 256;
  const std::string farther = print();
  EXPECT_NE(farther, before);
  config.norm_epsilon = 1e-5f;
  EXPECT_NE(print(), farther);
}

}  // namespace
}  // namespace linnet
