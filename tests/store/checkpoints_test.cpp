// Checkpoints as others write them, against what PyTorch computes from the same weights
// (tests/reference/make_checkpoints.py): names, shapes and configurations are understood without being told.
#include <gtest/gtest.h>

#include <cstring>

#include "store/dit_file.h"
#include "support/compare.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using test::refusal;

std::string checkpoint(const char* name) { return fmt::format("{}/checkpoints/{}", LINNET_TEST_DATA, name); }
std::string reference(std::string_view name, const char* kind) {
  return fmt::format("{}/reference/{}.{}.safetensors", LINNET_TEST_DATA, name, kind);
}

double forward_error(const DiT& model, std::string_view expected) {
  const auto io = SafetensorsFile::open(reference(expected, "io"));
  return test::relative_error(model.forward(io.tensor("x"), io.tensor("t"), io.tensor("y")), io.tensor("out"));
}

TEST(Checkpoint, OfATrainingGivesItsMovingAverage) {
  EXPECT_LT(forward_error(*load_dit(checkpoint("lit.pt")).model, "dit_lit"), 1e-4);
}

TEST(Checkpoint, OfATrainingGivesItsRawWeightsWhenAsked) {
  const Weights raw = find_dit_weights(Weights::open(checkpoint("lit.pt")), Choice::raw);
  for (const Weights::Item& item : raw.items()) {
    const Tensor tensor = raw.tensor(item.name);
    for (const float value : tensor.values<float>()) ASSERT_EQ(value, 0.0f) << item.name;
  }
}

TEST(Checkpoint, OfAPlainStateDictionaryIsTheModel) {
  EXPECT_LT(forward_error(*load_dit(checkpoint("lit-plain.pt")).model, "dit_lit"), 1e-4);
}

TEST(Checkpoint, OfDiffusersIsTheOriginalModel) {
  EXPECT_LT(forward_error(*load_dit(checkpoint("diffusers")).model, "dit_softmax"), 1e-4);
}

TEST(Checkpoint, KeepsEveryWeightThroughDiffusersNamesAndBack) {
  const Weights original = find_dit_weights(Weights::open(reference("dit_softmax", "model")));
  const Weights again = with_original_names(with_diffusers_names(original, read_dit_config(original)));
  EXPECT_EQ(again.items().size() + 1, original.items().size());  // pos_embed is computed
  for (const Weights::Item& item : again.items()) {
    const Tensor a = again.tensor(item.name), b = original.tensor(item.name);
    ASSERT_EQ(a.shape(), b.shape()) << item.name;
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0) << item.name;
  }
}

// What shapes can tell must be what the configuration says.
TEST(Checkpoint, TellsItsConfigurationByItsShapes) {
  for (const char* name : {"dit_softmax", "dit_linear", "dit_lit", "dit_lit_patch4", "dit_lit_odd",
                           "dit_no_sigma", "dit_focused"}) {
    const Weights weights = Weights::open(reference(name, "model"));
    DiTConfig stated = read_dit_config(weights), inferred = infer_dit_config(weights);
    EXPECT_EQ(inferred.mixer, stated.mixer) << name;
    if (!nn::has_convolution(stated.mixer)) inferred.num_heads = stated.num_heads;
    EXPECT_EQ(inferred, stated) << name << ": " << to_json(inferred) << " instead of " << to_json(stated);
  }
}

TEST(Checkpoint, OfPublishedSizesGetsThePublishedHeads) {
  for (const char* name :
       {"DiT-S/2", "DiT-B/4", "DiT-L/2", "DiT-XL/2", "LiT-S/2", "LiT-B/2", "LiT-L/4", "LiT-XL/2"}) {
    DiTConfig config = dit_preset(name);
    config.depth = 1;
    DiT model(config);
    Weights weights(name);
    model.visit("", [&](const std::string& tensor, nn::Parameter& parameter) {
      weights.add({tensor, "F32", DType::f32, parameter.shape, [] { return Tensor(); }});
    });
    EXPECT_EQ(infer_dit_config(weights), config) << name;
  }
}

Weights without(const Weights& all, std::string_view left_out) {
  Weights result(all.source());
  for (const Weights::Item& item : all.items())
    if (item.name != left_out) result.add(item);
  return result;
}

TEST(Checkpoint, OfFocusedAttentionTellsItsInputByThePositionsOfItsKeys) {
  const Weights weights = Weights::open(reference("dit_focused", "model"));
  DiTConfig other = read_dit_config(weights);
  other.input_size = 24;
  DiT model(other);
  Weights larger("larger.pt");
  model.visit("", [&](const std::string& name, nn::Parameter& parameter) {
    larger.add({name, "F32", DType::f32, parameter.shape, [] { return Tensor(); }});
  });
  EXPECT_EQ(infer_dit_config(without(larger, "pos_embed")), other);
}

TEST(Checkpoint, OfGeluIsTakenForReluUnlessItSaysSo) {
  const Weights weights = Weights::open(reference("dit_focused_gelu", "model"));
  EXPECT_EQ(infer_dit_config(weights).mixer, nn::Mixer::focused);
  EXPECT_EQ(read_dit_config(weights).mixer, nn::Mixer::focused_gelu);
}

TEST(Checkpoint, NamesTheTensorThatIsMissing) {
  const Weights plain = find_dit_weights(Weights::open(checkpoint("lit-plain.pt")));
  const char* name = "blocks.1.attn.kv.bias";
  EXPECT_NE(refusal([&] { load_dit(without(plain, name)); }).find(name), std::string::npos);
  const Weights diffusers = Weights::open(checkpoint("diffusers"));
  name = "transformer_blocks.1.attn1.to_k.weight";
  EXPECT_NE(refusal([&] { with_original_names(without(diffusers, name)); }).find(name), std::string::npos);
}

// As a model may have that was trained in diffusers, where each block embeds timesteps and classes by itself.
TEST(Checkpoint, OfBlocksThatEmbedEachInItsOwnWayIsRefused) {
  const Weights alike = Weights::open(checkpoint("diffusers"));
  const char* name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight";
  Weights unlike = without(alike, name);
  Weights::Item item = alike.item(name);
  item.read = [read = item.read] {
    Tensor other = read().clone();
    other.mutable_data<float>()[0] += 1;
    return other;
  };
  unlike.add(item);
  const Weights renamed = with_original_names(unlike);
  const std::string sentence = refusal([&] { (void)renamed.tensor("t_embedder.mlp.0.weight"); });
  EXPECT_NE(sentence.find(name), std::string::npos) << sentence;
  EXPECT_EQ(refusal([&] { (void)renamed.tensor("t_embedder.mlp.2.weight"); }), "accepted");
}

TEST(Checkpoint, OfNoDiTIsRefused) {
  Weights other("bert.safetensors");
  other.add({"embeddings.word", "F32", DType::f32, {3, 4}, [] { return Tensor::zeros({3, 4}); }});
  EXPECT_EQ(refusal([&] { load_dit(other); }), "bert.safetensors: these are not the weights of a DiT or LiT");
}

TEST(Checkpoint, InAFolderWithoutWeightsIsRefused) {
  const TemporaryFolder folder;
  EXPECT_NE(refusal([&] { Weights::open(folder / "."); }).find("this folder holds no weights"),
            std::string::npos);
}

}  // namespace
}  // namespace linnet
