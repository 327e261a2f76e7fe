// Which parameters are the matrices of blocks, that may be in 8 bits, visit a GPU and be trained by Muon: a
// layer that forgets to say so is found by its name.
#include <gtest/gtest.h>

#include "models/dit.h"
#include "models/pixart.h"
#include "models/t5.h"

namespace linnet {
namespace {

template <class Model>
void expect_all_said(Model model) {
  for (const auto& [name, parameter] : nn::all_parameters(model)) {
    const bool in_block = name.find(".block.") != std::string::npos || name.starts_with("blocks.");
    const bool matrix = name.ends_with(".weight") && parameter->shape.rank() == 2;
    const bool table = name.find("relative_attention_bias") != std::string::npos;
    EXPECT_EQ(parameter->block_matrix, in_block && matrix && !table) << name;
  }
}

TEST(BlockMatrices, AreThoseOfALayerInABlock) {
  using nn::Mixer;
  for (const Mixer mixer : {Mixer::softmax, Mixer::linear, Mixer::lit, Mixer::focused, Mixer::focused_gelu}) {
    DiTConfig dit{.hidden_size = 16, .depth = 2, .num_heads = 2, .num_classes = 3, .mixer = mixer};
    dit.input_size = 8;
    expect_all_said(DiT(dit));
    PixArtConfig pixart;
    pixart.sample_size = 8;
    pixart.hidden_size = pixart.caption_channels = 24;
    pixart.depth = pixart.num_heads = pixart.num_cross_heads = 2;
    pixart.micro_conditions = true;
    pixart.mixer = mixer;
    pixart.qk_norm = mixer == Mixer::softmax;
    if (pixart.qk_norm) pixart.kv_compression = {1, 2};
    expect_all_said(PixArt(pixart));
  }
  expect_all_said(
      T5Encoder({.vocabulary = 16, .width = 8, .hidden = 16, .depth = 2, .heads = 2, .head_size = 4}));
}

}  // namespace
}  // namespace linnet
