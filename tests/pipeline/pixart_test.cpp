// The text-to-image transformer: what diffusers computes, and PyTorch where diffusers lacks something, from
// either kind of names; 8 bits.
#include "models/pixart.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/random.h"
#include "io/safetensors.h"
#include "pipeline/forward.h"
#include "pipeline/pixart_models.h"
#include "store/convert.h"
#include "store/inherit.h"
#include "store/metadata.h"
#include "store/parameters.h"
#include "store/pixart_file.h"
#include "support/compare.h"
#include "support/processor.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

using test::dumps, test::make_folder, test::small_config, test::weights_of;

class PixArtReference : public testing::TestWithParam<std::string> {
 protected:
  PixArtReference() { make_folder(folder_ / "transformer", GetParam()); }
  double error(const PixArt& model) const {
    return test::relative_error(forward_file(model, io_), io_.tensor("out"));
  }

  TemporaryFolder folder_;
  SafetensorsFile io_ = SafetensorsFile::open(dumps / ("pixart_" + GetParam() + ".io.safetensors"));
};

TEST_P(PixArtReference, ComputesWhatPyTorchDoes) {
  const LoadedPixArt loaded = load_pixart(folder_.path());  // a pipeline's folder
  EXPECT_LT(error(*loaded.model), 1e-5);
  nn::freeze(*loaded.model);
  EXPECT_LT(error(*loaded.model), 1e-5);
  if (ops::have_bf16_products()) {
    loaded.model->set_product_dtype(DType::bf16);
    EXPECT_LT(error(*loaded.model), 2e-2);
  }
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

// Each token's result depends on the others, by whichever mixer.
TEST(PixArtMixers, EachMixesTokens) {
  std::vector<Tensor> results;
  for (const nn::Mixer mixer :
       {nn::Mixer::softmax, nn::Mixer::linear, nn::Mixer::lit, nn::Mixer::focused, nn::Mixer::focused_gelu}) {
    PixArtConfig config = small_config();
    config.micro_conditions = false;
    config.mixer = mixer;
    PixArt model(config);
    for (const auto& [name, parameter] : nn::learned_parameters(model)) {
      Generator generator(nn::hash_name(name));
      parameter->init = nn::Init::normal(0.2f);
      nn::draw(*parameter, generator);
    }
    Generator generator(1);
    Tensor x = generator.normal({1, 4, 8, 8});
    const Tensor t = Tensor::full({1}, 300.0f);
    const TextStates text{generator.normal({3, 12}), {0, 3}};
    const Tensor before = model.forward(x, t, text).clone();
    x.mutable_data<float>()[63] += 1;  // in the last token
    const Tensor after = model.forward(x, t, text);
    for (const Tensor& y : {before, after})
      for (int64_t i = 0; i < y.numel(); ++i) ASSERT_TRUE(std::isfinite(y.data<float>()[i]));
    EXPECT_NE(before.data<float>()[0], after.data<float>()[0]) << nn::name_of(mixer);
    for (const Tensor& other : results)
      EXPECT_GT(test::relative_error(before, other), 1e-3) << nn::name_of(mixer);
    results.push_back(before);
  }
}

TEST(PixArtFile, PyTorchsHoldsWeightsAndTheirAverage) {
  const fs::path path = dumps / "pixart_lit.pth";
  const LoadedPixArt own = load_pixart(weights_of("lit")), raw = load_pixart(path, Choice::raw),
                     ema = load_pixart(path);
  EXPECT_EQ(raw.model->config().sample_size, 8);
  EXPECT_EQ(raw.model->null_text().states.size(0), 9);
  const auto named = [](const LoadedPixArt& loaded) {
    std::map<std::string, Tensor> values;
    for (const auto& [name, parameter] : nn::learned_parameters(*loaded.model)) values[name] = parameter->value;
    return values;
  };
  const auto expected = named(own), weights = named(raw), averages = named(ema);
  ASSERT_EQ(weights.size(), expected.size() + 1);
  for (const auto& [name, value] : expected) {
    EXPECT_EQ(test::relative_error(weights.at(name), value), 0) << name;
    for (int64_t i = 0; i < value.numel(); ++i)
      ASSERT_EQ(averages.at(name).data<float>()[i], value.data<float>()[i] + 1) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(PixArt, PixArtReference,
                         testing::Values("sigma", "alpha", "lit", "compressed", "normed"),
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

// α's model of 512 pixels has nothing in its own folder that tells it from Σ's.
TEST(PixArtFile, ThePipelineTellsHowLongTextsMayBe) {
  const TemporaryFolder folder;
  make_folder(folder / "model/transformer", "sigma");
  const auto index = [&](const char* pipeline) {
    std::ofstream(folder / "model/model_index.json") << fmt::format(R"({{"_class_name": "{}"}})", pipeline);
  };
  for (const auto& [pipeline, tokens] : {std::pair("PixArtAlphaPipeline", 120), {"PixArtSigmaPipeline", 300}}) {
    index(pipeline);
    EXPECT_EQ(load_pixart(folder / "model").model->config().caption_tokens, tokens);
    EXPECT_EQ(load_pixart(folder / "model/transformer").model->config().caption_tokens, tokens);
  }
  const std::string nested = std::string(400'000, '[') + std::string(400'000, ']');
  for (const std::string& strange : {std::string("no json"), fmt::format(R"({{"_class_name": {}}})", nested)}) {
    std::ofstream(folder / "model/model_index.json") << strange;
    EXPECT_EQ(load_pixart(folder / "model").model->config().caption_tokens, 300);
  }
}

// Projections that diffusers stores apart cannot be mapped as the one that they are here.
TEST(PixArtFile, WhatIsJoinedIsKnownToTakeMemory) {
  const TemporaryFolder folder;
  make_folder(folder / "apart", "sigma");
  const Weights apart = find_pixart_weights(Weights::open(folder / "apart"), Choice::ema);
  EXPECT_EQ(apart.made_bytes(), size_t{2} * (5 * 24 * 24 + 5 * 24) * 4);
  EXPECT_EQ(find_pixart_weights(Weights::open(weights_of("lit")), Choice::ema).made_bytes(), 0u);
}

TEST(PixArtConfig, AnMlpsWidthSurvivesItsRatio) {
  for (const auto& [width, hidden] : {std::pair<int64_t, int64_t>{1344, 3264}, {832, 960}, {1152, 4608}})
    EXPECT_EQ(nn::mlp_width(width, static_cast<double>(hidden) / static_cast<double>(width)), hidden);
}

TEST(PixArtFile, NamesTellNormsAndShapesTheCompression) {
  const TemporaryFolder folder;
  for (const char* name : {"compressed", "normed"}) make_folder(folder / name, name);
  const PixArtConfig compressed = load_pixart(folder / "compressed").model->config();
  EXPECT_FALSE(compressed.qk_norm);
  EXPECT_EQ(compressed.kv_compression, (std::vector<int64_t>{1, 2}));
  const PixArtConfig normed = load_pixart(folder / "normed").model->config();
  EXPECT_TRUE(normed.qk_norm);
  EXPECT_EQ(normed.kv_compression, (std::vector<int64_t>{2, 1}));
}

// A file's tensors, some of them replaced, or left out where there is nothing in their place.
NamedTensors tensors_with(const std::string& model, const std::map<std::string, Tensor>& others) {
  const auto file = SafetensorsFile::open(weights_of(model));
  NamedTensors tensors;
  for (const std::string& name : file.names())
    if (!others.contains(name)) tensors.emplace_back(name, file.tensor(name));
  for (const auto& [name, tensor] : others)
    if (tensor.defined()) tensors.emplace_back(name, tensor);
  return tensors;
}

// As diffusers' first conversions of α have it, and so the published folders.
TEST(PixArtFile, AnEmbeddingOfNoTextIsFoundByDiffusersName) {
  const TemporaryFolder folder;
  const Tensor rows = Tensor::full({120, 20}, 0.5f);
  write_safetensors(folder / "p.safetensors",
                    tensors_with("alpha", {{"caption_projection.y_embedding", rows}}));
  const LoadedPixArt loaded = load_pixart(folder / "p.safetensors");
  EXPECT_TRUE(loaded.model->config().null_caption);
  EXPECT_EQ(loaded.model->config().caption_tokens, 120);
  EXPECT_EQ(test::relative_error(loaded.model->null_text().states, rows), 0);
}

TEST(PixArtFile, NormsAreFoundByTheNamesThatTheOriginalsConversionGivesThem) {
  std::map<std::string, Tensor> norms;
  for (const char* block : {"0", "1"})
    for (const char* norm : {"q_norm", "k_norm"})
      for (const char* kind : {"weight", "bias"})
        norms[fmt::format("transformer_blocks.{}.attn1.{}.{}", block, norm, kind)] = Tensor::full({24}, 0.5f);
  const TemporaryFolder folder;
  write_safetensors(folder / "p.safetensors", tensors_with("sigma", norms));
  EXPECT_TRUE(load_pixart(folder / "p.safetensors").model->config().qk_norm);
}

TEST(PixArtFile, ACompressionThatDoesNotFitIsRefusedByName) {
  const TemporaryFolder folder;
  const fs::path path = folder / "p.safetensors";
  const std::string sr = "blocks.1.attn.sr.weight",
                    stated = to_json(load_pixart(weights_of("compressed")).model->config());
  for (const Shape& shape : {Shape{24, 1, 2, 3}, Shape{24, 1, 1, 1}, Shape{24, 2, 2, 2}, Shape{12, 1, 2, 2},
                             Shape{24, 1, 17, 17}, Shape{24, 4}, Shape{24, 1, 0, 0}}) {
    write_safetensors(path, tensors_with("compressed", {{sr, Tensor::zeros(shape)}}));
    test::expect_refused(
        fmt::format("'{}' of shape {} does not compress keys and values", sr, to_string(shape)),
        [&] { load_pixart(path); });
  }
  const Tensor large = Tensor::zeros({24, 1, 3, 3});  // which would do, had its file not stated another
  write_safetensors(path, tensors_with("compressed", {{sr, large}}), {{config_key, stated}});
  test::expect_refused(sr, [&] { load_pixart(path); });
  write_safetensors(path, tensors_with("compressed", {{sr, {}}}));
  test::expect_refused("\"blocks.1.attn.norm.bias\" has no place", [&] { load_pixart(path); });
  write_safetensors(path, tensors_with("compressed", {{"blocks.1.attn.norm.weight", {}}}));
  test::expect_refused("\"blocks.1.attn.norm.weight\" is missing", [&] { load_pixart(path); });
}

TEST(PixArtFile, OnlySoftmaxAttentionHasNormsAndCompression) {
  const TemporaryFolder folder;
  const std::string sentence = "softmax attention's";
  for (const auto& [name, tensor] :
       std::map<std::string, Tensor>{{"blocks.1.attn.sr.weight", Tensor::zeros({24, 1, 2, 2})},
                                     {"blocks.0.attn.q_norm.weight", Tensor::zeros({24})}}) {
    write_safetensors(folder / "p.safetensors", tensors_with("lit", {{name, tensor}}));
    test::expect_refused(sentence, [&] { load_pixart(folder / "p.safetensors"); });
  }
  EXPECT_THROW(nn::make_mixer(nn::Mixer::lit, 24, 2, 16, {true, 1}), UsageError);
  EXPECT_THROW(nn::make_mixer(nn::Mixer::linear, 24, 2, 16, {false, 2}), UsageError);
}

TEST(PixArtFile, AConfigurationSaysTheCompressionOfEveryBlock) {
  PixArtConfig config = small_config();
  EXPECT_EQ(to_json(config).find("qk_norm"), std::string::npos);  // said only where it is there
  EXPECT_EQ(to_json(config).find("kv_compression"), std::string::npos);
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{2}, {2, 0}, {2, 17}, {1, 2, 2}}) {
    config.kv_compression = wrong;
    test::expect_refused("kv_compression", [&] { pixart_config_from_json(to_json(config)); });
  }
}

// The matrices in 8 bits, the convolution and the norms as they were.
TEST(PixArtFile, ItsNormsAndCompressionSurviveConversion) {
  const TemporaryFolder folder;
  make_folder(folder / "normed", "normed");
  const Weights weights = find_pixart_weights(Weights::open(folder / "normed"));
  PixArt model(read_pixart_config(weights));
  const nn::ParameterList parameters = nn::all_parameters(model);
  save_weights(folder / "p.safetensors", in_8_bits(weights_of_model(weights, parameters, false), parameters),
               {{config_key, to_json(model.config())}});
  const auto converted = SafetensorsFile::open(folder / "p.safetensors");
  EXPECT_EQ(converted.entry("blocks.0.attn.qkv.weight").dtype, DType::i8);
  EXPECT_EQ(converted.entry("blocks.0.attn.sr.weight").dtype, DType::f32);
  const LoadedPixArt loaded = load_pixart(folder / "p.safetensors");
  EXPECT_EQ(loaded.model->config(), model.config());
  loaded.model->set_product_dtype(DType::i8);
  nn::freeze(*loaded.model);
  const auto io = SafetensorsFile::open(dumps / "pixart_normed.io.safetensors");
  EXPECT_LT(test::relative_error(forward_file(*loaded.model, io), io.tensor("out")), 6e-2);
}

TEST(PixArtFile, ALinearStudentInheritsNeitherNormsNorCompression) {
  const Weights teacher = find_pixart_weights(Weights::open(weights_of("normed")));
  const PixArtConfig config = read_pixart_config(teacher);
  PixArt lit(student_of(config, nn::Mixer::lit, 2)), softmax(student_of(config, nn::Mixer::softmax, 3));
  EXPECT_FALSE(lit.config().qk_norm);
  EXPECT_TRUE(lit.config().kv_compression.empty());
  EXPECT_TRUE(softmax.config().qk_norm);
  EXPECT_EQ(softmax.config().kv_compression, config.kv_compression);
  for (const Inherited& row : inherit(lit, teacher, also_inherit_from_name("qkvo"), 7))
    EXPECT_EQ(row.source.empty(), row.tensor.find(".attn.dwc.") != std::string::npos) << row.tensor;
  for (const Inherited& row : inherit(softmax, teacher, also_inherit_from_name("qkvo"), 7))
    EXPECT_FALSE(row.source.empty()) << row.tensor;
  for (const Inherited& row : inherit(softmax, teacher, also_inherit_from_name("qv"), 7)) {
    bool fresh = false;
    for (const char* part : {".attn.proj.", ".attn.sr.", ".attn.norm.", ".attn.k_norm."})
      fresh = fresh || row.tensor.find(part) != std::string::npos;
    EXPECT_EQ(row.source.empty(), fresh) << row.tensor;
  }
}

TEST(PixArtFile, AStudentOfTheSameAttentionMayBeItsTeacher) {
  const TemporaryFolder folder;
  make_folder(folder.path(), "normed");
  const Weights teacher = find_pixart_weights(Weights::open(folder.path()));
  const PixArtConfig config = read_pixart_config(teacher);
  PixArt student(student_of(config, nn::Mixer::softmax, config.num_heads));
  inherit(student, teacher, also_inherit_from_name("qkvo"), 7);
  nn::freeze(student);
  const auto io = SafetensorsFile::open(dumps / "pixart_normed.io.safetensors");
  EXPECT_LT(test::relative_error(forward_file(student, io), io.tensor("out")), 1e-5);
}

TEST(PixArtCost, CountsTheKeysThatAreLeft) {
  PixArtConfig config = small_config();
  config.depth = 4;
  const double all = gemm_flops(config, 10, 14, 5);  // 5 × 7 tokens
  config.kv_compression = {1, 1, 2, 2};
  EXPECT_DOUBLE_EQ(all - gemm_flops(config, 10, 14, 5), 2 * 2 * 2 * 35.0 * (35 - 6) * 24);
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

}  // namespace
}  // namespace linnet
