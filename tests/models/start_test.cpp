// How fresh models begin: as their originals do, whose training codes draw these weights.
#include <gtest/gtest.h>

#include <cmath>

#include "models/dit.h"
#include "models/pixart.h"
#include "ops/reduce.h"

namespace linnet {
namespace {

// The root of the mean square of every parameter's values, by name.
template <class Model>
std::map<std::string, double> loudness(Model& model) {
  nn::initialize(model, 1);
  std::map<std::string, double> result;
  for (const auto& [name, parameter] : nn::learned_parameters(model))
    result[name] =
        std::sqrt(ops::sum_of_squares(parameter->value) / static_cast<double>(parameter->value.numel()));
  return result;
}

double xavier(double in, double out) { return std::sqrt(2 / (in + out)); }

// facebookresearch/DiT, DiT.initialize_weights; the convolution is PyTorch's own, even between ±1/5.
TEST(FreshDiT, HasTheWeightsThatTheOriginalsDraw) {
  DiTConfig config;
  config.input_size = 16;
  config.hidden_size = 96;
  config.depth = 2;
  config.num_heads = 2;
  config.num_classes = 40;
  config.mixer = nn::Mixer::lit;
  DiT model(config);
  std::map<std::string, double> expected{{"x_embedder.proj.weight", xavier(4 * 2 * 2, 96)},
                                         {"t_embedder.mlp.0.weight", 0.02},
                                         {"t_embedder.mlp.2.weight", 0.02},
                                         {"y_embedder.embedding_table.weight", 0.02}};
  for (const std::string& block : {std::string("blocks.0."), std::string("blocks.1.")}) {
    expected[block + "attn.q.weight"] = expected[block + "attn.proj.weight"] = xavier(96, 96);
    expected[block + "attn.kv.weight"] = xavier(96, 2 * 96);
    expected[block + "attn.dwc.weight"] = expected[block + "attn.dwc.bias"] = 0.2 / std::sqrt(3.0);
    expected[block + "mlp.fc1.weight"] = expected[block + "mlp.fc2.weight"] = xavier(96, 4 * 96);
  }
  // All others: biases, what modulates, and the last layer.
  for (const auto& [name, loud] : loudness(model)) {
    const auto known = expected.find(name);
    const double wanted = known == expected.end() ? 0 : known->second;
    const double share = name.ends_with("dwc.bias") ? 0.25 : 0.1;  // of 48 numbers
    EXPECT_NEAR(loud, wanted, share * wanted) << name;
    if (known != expected.end()) expected.erase(known);
  }
  EXPECT_TRUE(expected.empty());
}

// PixArt's initialize: at first no text is heard. Tables are drawn over the root of the width.
TEST(FreshPixArt, HearsNoTextAndHasTablesOfTheRootOfTheWidth) {
  PixArtConfig config;
  config.sample_size = 8;
  config.hidden_size = 96;
  config.depth = 1;
  config.num_heads = config.num_cross_heads = 2;
  config.caption_channels = 32;
  PixArt model(config);
  const auto found = loudness(model);
  EXPECT_EQ(found.at("blocks.0.cross_attn.proj.weight"), 0);
  EXPECT_EQ(found.at("final_layer.linear.weight"), 0);
  EXPECT_NEAR(found.at("blocks.0.scale_shift_table") * std::sqrt(96.0), 1, 0.1);
  EXPECT_NEAR(found.at("final_layer.scale_shift_table") * std::sqrt(96.0), 1, 0.2);
}

// As its paper lists them; what it calls flops are multiply-adds.
TEST(MultiplyAdds, OfDiTAreThoseOfItsPaper) {
  EXPECT_NEAR(static_cast<double>(count_macs(dit_preset("DiT-S/2"))) * 1e-9, 6.06, 0.02);
  EXPECT_NEAR(static_cast<double>(count_macs(dit_preset("DiT-B/4"))) * 1e-9, 5.56, 0.02);
  EXPECT_NEAR(static_cast<double>(count_macs(dit_preset("DiT-XL/2"))) * 1e-9, 118.64, 0.1);
}

// 2n²d of softmax become 3nd²/heads, and a convolution of 5 × 5 is 25nd.
TEST(MultiplyAdds, OfAttentionAreCountedAsInLiTsFigure5) {
  const auto cost = [](nn::Mixer mixer) {
    DiTConfig config;  // 256 tokens
    config.hidden_size = 384;
    config.depth = 12;
    config.num_heads = 2;
    config.mixer = mixer;
    return count_macs(config);
  };
  const int64_t n = 256, d = 384;
  EXPECT_EQ(cost(nn::Mixer::softmax) - cost(nn::Mixer::linear), 12 * (2 * n * n * d - 3 * n * d * d / 2));
  EXPECT_EQ(cost(nn::Mixer::lit) - cost(nn::Mixer::linear), 12 * 25 * n * d);
}

// Of the linear form, what is computed is 2nd²/heads.
TEST(GemmFlops, AreTwoForEachMultiplyAddOfTheBlocksProducts) {
  DiTConfig config = dit_preset("DiT-S/2");
  const int64_t n = 256, d = 384;
  const int64_t others = 4 * n * d * d + 8 * n * d * d + 6 * d * d;
  EXPECT_EQ(gemm_flops(config), static_cast<double>(2 * 12 * (others + 2 * n * n * d)));
  config.mixer = nn::Mixer::lit;
  config.num_heads = 2;
  EXPECT_EQ(gemm_flops(config), static_cast<double>(2 * 12 * (others + 2 * n * d * d / 2)));
}

}  // namespace
}  // namespace linnet
