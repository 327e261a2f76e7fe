// The text encoder: what transformers computes, from every kind of file, and in 8 bits on activations like
// T5's.
#include "models/t5.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "core/random.h"
#include "io/safetensors.h"
#include "pipeline/forward.h"
#include "store/t5_file.h"
#include "support/compare.h"
#include "support/processor.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path dumps = LINNET_TEST_DATA "/reference";
const fs::path stored = dumps / "t5.model.safetensors";

// The folder that transformers would write.
void make_folder(const fs::path& folder) {
  fs::create_directories(folder);
  fs::copy_file(stored, folder / "model.safetensors");
  std::ofstream(folder / "config.json") << SafetensorsFile::open(stored).metadata().at("config");
}

class T5Reference : public testing::Test {
 protected:
  T5Reference() { make_folder(folder_ / "text_encoder"); }
  Tensor states(const T5Encoder& encoder) const { return text_file(encoder, io_).front().second; }

  TemporaryFolder folder_;
  SafetensorsFile io_ = SafetensorsFile::open(dumps / "t5.io.safetensors");
};

TEST_F(T5Reference, EncodesAsTransformersDoes) {
  const auto encoder = load_t5(folder_.path());  // a pipeline's folder
  EXPECT_LT(test::relative_error(states(*encoder), io_.tensor("last_hidden_state")), 1e-5);
  if (!ops::have_bf16_products()) return;
  encoder->set_product_dtype(DType::bf16);
  EXPECT_LT(test::relative_error(states(*encoder), io_.tensor("last_hidden_state")),
            6e-2);  // scores are not scaled down, so softmax makes much of small differences
}

TEST_F(T5Reference, ATextDoesNotDependOnItsNeighbours) {
  const auto encoder = load_t5(folder_ / "text_encoder");
  const Tensor all = io_.tensor("input_ids").rows(1, 2).reshape({37});
  const Tensor ids = all.rows(0, 11);
  const Tensor alone = encoder->forward(ids, {0, 11});
  const Tensor expected = io_.tensor("last_hidden_state").rows(1, 2).reshape({37, 24}).rows(0, 11);
  EXPECT_LT(test::relative_error(alone, expected), 1e-5);
}

TEST_F(T5Reference, TheConfigurationIsToldByShapesButForTheLargestDistance) {
  const T5Config config = read_t5_config(find_t5_weights(Weights::open(folder_ / "text_encoder")));
  EXPECT_EQ(config, (T5Config{60, 24, 40, 3, 3, 8, 8, 20, 1e-6f}));
  T5Config alone = read_t5_config(find_t5_weights(Weights::open(stored)));
  EXPECT_EQ(alone.max_distance, 128);
  alone.max_distance = 20;
  EXPECT_EQ(alone, config);
}

TEST_F(T5Reference, ADecoderAndOtherNamesOfTheTableAreUnderstood) {
  const auto file = SafetensorsFile::open(stored);
  NamedTensors tensors;
  for (const std::string& name : file.names())
    tensors.emplace_back("t5." + (name == "shared.weight" ? "encoder.embed_tokens.weight" : name),
                         file.tensor(name));
  tensors.emplace_back("t5.decoder.block.0.layer.0.SelfAttention.q.weight", Tensor::zeros({24, 24}));
  tensors.emplace_back("vae.conv", Tensor::zeros({3}));
  write_safetensors(folder_ / "all.safetensors", tensors);
  const Weights weights = find_t5_weights(Weights::open(folder_ / "all.safetensors"));
  EXPECT_EQ(weights.items().size(), file.names().size());
  EXPECT_EQ(load_t5(folder_ / "all.safetensors")->config().depth, 3);
}

TEST_F(T5Reference, WhatIsNoT5IsRefusedByName) {
  test::expect_refused("no T5 text encoder", [&] { load_t5(dumps / "vae_plain.model.safetensors"); });
  const auto config = folder_ / "text_encoder" / "config.json";
  std::ofstream(config) << R"({"feed_forward_proj": "relu"})";
  test::expect_refused("\"relu\"", [&] { load_t5(folder_.path()); });
  std::ofstream(config) << R"({"relative_attention_max_distance": "far"})";
  test::expect_refused("config.json is not readable", [&] { load_t5(folder_.path()); });
  std::ofstream(config) << R"({"relative_attention_max_distance": 1})";
  test::expect_refused("largest distance", [&] { load_t5(folder_.path()); });
}

double cosine(const float* a, const float* b, int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

// T5's residual stream has a few channels that are hundreds of times larger than the rest: here they are put
// into the table of tokens. Norms that let them through make all else faint; norms that damp them make all
// alike again.
struct Outliers {
  float size;
  bool damped;
};
class T5InEightBits : public testing::TestWithParam<Outliers> {
 protected:
  static constexpr std::array<int64_t, 4> channels = {7, 50, 51, 119};
  static constexpr int64_t width = 128, tokens = 60, vocabulary = 100;

  std::unique_ptr<T5Encoder> make() const {
    T5Config config;
    config.vocabulary = vocabulary;
    config.width = width;
    config.hidden = 320;
    config.depth = 4;
    config.heads = 4;
    config.head_size = 32;
    auto encoder = std::make_unique<T5Encoder>(config);
    nn::initialize(*encoder, 3);
    encoder->visit("", [](const std::string& name, nn::Parameter& p) {
      const auto [size, damped] = GetParam();
      float* values = p.value.mutable_data<float>();
      if (name == "shared.weight")
        for (int64_t row = 0; row < vocabulary; ++row)
          for (const int64_t channel : channels) {
            float& value = values[row * width + channel];
            value = std::copysign(size, value);
          }
      if (!damped) return;
      // Norms that see little but the outliers do not keep what blocks add from growing.
      if (name.ends_with(".o.weight") || name.ends_with(".wo.weight"))
        for (int64_t i = 0; i < p.value.numel(); ++i) values[i] *= 0.1f;
      if (!name.ends_with("layer_norm.weight")) return;
      const float loudness = size * std::sqrt(static_cast<float>(channels.size()) / width);
      for (int64_t i = 0; i < width; ++i) values[i] *= std::max(1.0f, loudness);
      for (const int64_t channel : channels) values[channel] /= size;
    });
    return encoder;
  }

  // Of the channels that are not outliers: those alone would hide whatever became of the others.
  static std::vector<float> ordinary(const Tensor& states, int64_t token) {
    std::vector<float> values;
    for (int64_t i = 0; i < width; ++i)
      if (std::ranges::find(channels, i) == channels.end())
        values.push_back(states.data<float>()[token * width + i]);
    return values;
  }
};

TEST_P(T5InEightBits, EveryTokenKeepsItsDirectionWhateverTheOutliers) {
  const auto exact = make(), rounded = make();
  rounded->visit("", [](const std::string&, nn::Parameter& p) {
    if (p.block_matrix) nn::quantize(p);
  });
  nn::freeze(*exact);
  nn::freeze(*rounded);
  rounded->set_product_dtype(ops::fastest_product_dtype());
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(i * 37 % 100);
  const Tensor a = exact->forward(Tensor::from(ids), {0, 20, tokens});
  const Tensor b = rounded->forward(Tensor::from(ids), {0, 20, tokens});
  for (int64_t token = 0; token < tokens; ++token) {
    EXPECT_GE(cosine(a.data<float>() + token * width, b.data<float>() + token * width, width), 0.999) << token;
    const std::vector<float> x = ordinary(a, token), y = ordinary(b, token);
    EXPECT_GE(cosine(x.data(), y.data(), static_cast<int64_t>(x.size())), 0.999) << token;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, T5InEightBits,
                         testing::Values(Outliers{1, false}, Outliers{100, false}, Outliers{300, false},
                                         Outliers{1000, false}, Outliers{100, true}, Outliers{300, true},
                                         Outliers{1000, true}));

TEST_F(T5Reference, FilesOfPyTorchWithAnIndexAreJoined) {
  // Two of the same file: the index says which tensor is taken from which.
  const auto file = SafetensorsFile::open(stored);
  fs::create_directories(folder_ / "bin");
  fs::copy_file(stored, folder_ / "bin" / "pytorch_model-00001-of-00002.bin");
  fs::copy_file(stored, folder_ / "bin" / "pytorch_model-00002-of-00002.bin");
  std::string map;
  for (size_t i = 0; i < file.names().size(); ++i)
    map += fmt::format("{}\"{}\": \"pytorch_model-0000{}-of-00002.bin\"", i ? ", " : "", file.names()[i],
                       1 + i % 2);
  std::ofstream(folder_ / "bin" / "pytorch_model.bin.index.json") << "{\"weight_map\": {" << map << "}}";
  EXPECT_EQ(load_t5(folder_ / "bin")->config().depth, 3);
}

}  // namespace
}  // namespace linnet
