// Conversions between kinds of files: what is written is what diffusers writes, weights keep their values, and
// only one tensor at a time is in memory.
#include "store/convert.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <cstring>
#include <fstream>
#include <limits>

#include "core/memory.h"
#include "store/dit_file.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

using test::refusal;

namespace fs = std::filesystem;

const fs::path data = LINNET_TEST_DATA;

Weights reference(const char* name) {
  return find_dit_weights(Weights::open(data / "reference" / fmt::format("{}.model.safetensors", name)));
}

void expect_equal(const Weights& a, const Weights& b) {
  EXPECT_EQ(a.items().size(), b.items().size());
  for (const Weights::Item& item : a.items()) {
    ASSERT_TRUE(b.contains(item.name)) << item.name;
    const Tensor x = item.read(), y = b.tensor(item.name);
    ASSERT_EQ(x.shape(), y.shape()) << item.name;
    ASSERT_EQ(x.dtype(), y.dtype()) << item.name;
    EXPECT_EQ(std::memcmp(x.raw(), y.raw(), x.bytes()), 0) << item.name;
  }
}

void save_folder(const fs::path& path, const Weights& original, const OnTensor& on_tensor = {}) {
  const DiTConfig config = read_dit_config(original);
  save_diffusers_folder(path, with_diffusers_names(original, config), config, {{"format", "pt"}}, on_tensor);
}

// tests/data/checkpoints/diffusers was written by diffusers itself from the same weights.
TEST(Convert, WritesTheFolderThatDiffusersWrites) {
  const TemporaryFolder folder;
  save_folder(folder / "dit", reference("dit_softmax"));
  const fs::path theirs = data / "checkpoints/diffusers/transformer";
  expect_equal(Weights::open(folder / "dit"), Weights::open(theirs));
  const auto config = [](const fs::path& path) {
    auto json = nlohmann::json::parse(read_text_file(path / "config.json", 1 << 20));
    json.erase("_diffusers_version");
    return json;
  };
  EXPECT_EQ(config(folder / "dit"), config(theirs));
}

TEST(Convert, TheFolderIsTheSameModelAgain) {
  const TemporaryFolder folder;
  const Weights original = reference("dit_softmax_odd");
  save_folder(folder / "dit", original);
  const Weights again = find_dit_weights(Weights::open(folder / "dit"));
  EXPECT_EQ(read_dit_config(again), read_dit_config(original));
  DiT model(read_dit_config(original));
  expect_equal(again, weights_of_model(original, nn::all_parameters(model), false));
}

TEST(Convert, AConfigurationInTheMetadataOutlivesDiffusersNames) {
  const TemporaryFolder folder;
  DiTConfig config = test::tiny_dit();
  config.prediction = Prediction::v;
  DiT model(config);
  nn::initialize(model, 1);
  save_dit(folder / "m.safetensors", model, DType::f32);
  const Weights original = find_dit_weights(Weights::open(folder / "m.safetensors"));
  save_weights(folder / "d.safetensors", with_diffusers_names(original, config), original.metadata());
  EXPECT_EQ(load_dit(folder / "d.safetensors").model->config(), config);
}

Weights dit_in_8_bits(const Weights& weights) {
  DiT model(read_dit_config(weights));
  return in_8_bits(weights, nn::all_parameters(model));
}

TEST(Convert, EightBitsAreThoseThatTheModelItselfRoundsTo) {
  const TemporaryFolder folder;
  const Weights original = reference("dit_lit");
  save_weights(folder / "m.safetensors", dit_in_8_bits(original), original.metadata());
  const LoadedDiT rounded = load_dit(original);
  rounded.model->set_product_dtype(DType::i8);
  EXPECT_EQ(fingerprint(*load_dit(folder / "m.safetensors").model), fingerprint(*rounded.model));
}

TEST(Convert, EightBitsGoBackToTheFloatsThatTheyStandFor) {
  const Weights original = reference("dit_lit");
  const LoadedDiT rounded = load_dit(dit_in_8_bits(original));
  rounded.model->set_product_dtype(DType::f32);
  for (const Weights& floats :
       {with_float_matrices(dit_in_8_bits(original)), in_dtype(dit_in_8_bits(original), DType::f32)}) {
    EXPECT_FALSE(floats.contains("blocks.0.mlp.fc1.weight_scale"));
    EXPECT_EQ(fingerprint(*load_dit(floats).model), fingerprint(*rounded.model));
  }
  expect_equal(dit_in_8_bits(dit_in_8_bits(original)), dit_in_8_bits(original));
}

TEST(Convert, EightBitsOfANumberThatIsNotFiniteAreRefusedByName) {
  Weights weights("file");
  weights.add({"blocks.0.mlp.fc1.weight", "f32", DType::f32, {1, 2}, [] {
                 return Tensor::full({1, 2}, std::numeric_limits<float>::infinity());
               }});
  nn::BlockLinear layer(2, 1);
  const nn::ParameterList model{{"blocks.0.mlp.fc1.weight", &layer.weight}};
  EXPECT_EQ(refusal([&] { in_8_bits(weights, model).tensor("blocks.0.mlp.fc1.weight"); }),
            "file: tensor 'blocks.0.mlp.fc1.weight': a weight that is not finite has no 8-bit form");
}

TEST(Convert, DiffusersHasOnlySoftmaxAndItsOwnMlp) {
  const Weights lit = reference("dit_lit");
  EXPECT_NE(refusal([&] { with_diffusers_names(lit, read_dit_config(lit)); }).find("diffusers has no LiT"),
            std::string::npos);
  const Weights softmax = reference("dit_softmax");
  DiTConfig config = read_dit_config(softmax);
  config.mlp_ratio = 2;
  EXPECT_NE(refusal([&] { with_diffusers_names(softmax, config); }).find("four times the width of 32"),
            std::string::npos);
}

TEST(Convert, PositionsAreTheFilesOwnOrComputedOrLeftOut) {
  const Weights ours = reference("dit_softmax"),
                theirs = find_dit_weights(Weights::open(data / "checkpoints/diffusers"));
  DiT model(read_dit_config(ours));
  EXPECT_EQ(weights_of_model(ours, nn::all_parameters(model), true).tensor("pos_embed").raw(),
            ours.tensor("pos_embed").raw());
  EXPECT_EQ(weights_of_model(theirs, nn::all_parameters(model), true).shape("pos_embed"), (Shape{1, 16, 32}));
  EXPECT_FALSE(weights_of_model(ours, nn::all_parameters(model), false).contains("pos_embed"));
}

Weights one(const Tensor& tensor) {
  Weights weights("w.pt");
  weights.add({"w", "F32", tensor.dtype(), tensor.shape(), [tensor] { return tensor; }});
  return weights;
}

TEST(InDtype, ConvertsAndRounds) {
  const Weights weights = one(Tensor::from<float>({1, 1.0001f, -65504, INFINITY}));
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    const Tensor result = in_dtype(weights, dtype).tensor("w");
    EXPECT_EQ(result.dtype(), dtype);
    EXPECT_EQ(in_dtype(weights, dtype).item("w").dtype, dtype);
    const Tensor values = result.to(DType::f32), expected = weights.tensor("w").to(dtype).to(DType::f32);
    for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(values.data<float>()[i], expected.data<float>()[i]);
  }
}

TEST(InDtype, NamesTheTensorThatWouldBecomeInfinite) {
  EXPECT_EQ(refusal([] {
              in_dtype(one(Tensor::from<float>({1, -70000})), DType::f16).tensor("w");
            }),
            "w.pt: tensor 'w' holds -70000, which is too large for f16; bf16 holds it");
  EXPECT_EQ(refusal([] { in_dtype(one(Tensor::from<float>({3.4e38f})), DType::bf16).tensor("w"); }),
            "w.pt: tensor 'w' holds 3.4e+38, which is too large for bf16");
  EXPECT_EQ(refusal([] { in_dtype(one(Tensor::from<double>({1e300})), DType::f32).tensor("w"); }),
            "w.pt: tensor 'w' holds 1e+300, which is too large for f32");
}

TEST(Convert, HoldsOneTensorAtATime) {
  const TemporaryFolder folder;
  DiTConfig config = test::tiny_dit();
  config.hidden_size = 64;
  config.depth = 12;
  DiT model(config);
  nn::initialize(model, 1);
  save_dit(folder / "m.safetensors", model, DType::f32);
  const Weights original = find_dit_weights(Weights::open(folder / "m.safetensors"));
  size_t largest = 0, all = 0;
  for (const Weights::Item& item : original.items()) {
    largest = std::max(largest, item.bytes());
    all += item.bytes();
  }
  ASSERT_GT(all, 10 * largest);
  const size_t before = memory_stats().in_use;
  reset_peak_memory();
  save_weights(folder / "out.safetensors", in_dtype(with_diffusers_names(original, config), DType::bf16), {});
  EXPECT_LE(memory_stats().peak - before, largest);
  const size_t model_before = memory_stats().in_use;
  reset_peak_memory();
  save_dit(folder / "out.safetensors", model, DType::bf16);
  EXPECT_LE(memory_stats().peak - model_before, largest);
}

// What is left when the writing is ended at its nth tensor: what was there before.
TEST(Convert, EndedInTheMiddleLeavesNothing) {
  const TemporaryFolder folder;
  const Weights original = reference("dit_softmax");
  int left = 5;
  const OnTensor stop = [&](const Weights::Item&) {
    if (left-- == 0) throw std::invalid_argument("stop");
  };
  EXPECT_THROW(save_weights(folder / "m.safetensors", original, {}, stop), std::invalid_argument);
  left = 5;
  EXPECT_THROW(save_folder(folder / "dit", original, stop), std::invalid_argument);
  EXPECT_TRUE(fs::is_empty(folder.path()));

  save_folder(folder / "dit", original);
  const auto before = read_text_file(folder / "dit/diffusion_pytorch_model.safetensors", 1 << 24);
  EXPECT_THROW(save_folder(folder / "dit", reference("dit_softmax_odd")), UsageError);
  EXPECT_EQ(read_text_file(folder / "dit/diffusion_pytorch_model.safetensors", 1 << 24), before);

  fs::create_directory(folder / "empty");
  left = 5;
  EXPECT_THROW(save_folder(folder / "empty", original, stop), std::invalid_argument);
  EXPECT_TRUE(fs::is_empty(folder / "empty"));
}

TEST(Convert, AFolderThatAKillHasLeftIsWrittenInto) {
  const TemporaryFolder folder;
  const fs::path place = folder / "dit";
  fs::create_directory(place);
  std::ofstream(place / "diffusion_pytorch_model.safetensors.partial") << "half";
  save_folder(place, reference("dit_softmax"));
  EXPECT_FALSE(fs::exists(place / "diffusion_pytorch_model.safetensors.partial"));
}

TEST(Convert, AFolderWithItsConfigAloneIsGoneOnWith) {
  const TemporaryFolder folder;
  const fs::path place = folder / "dit", weights = place / "diffusion_pytorch_model.safetensors";
  const auto config = [&] { return read_text_file(place / "config.json", 1 << 20); };
  save_folder(place, reference("dit_softmax"));
  const std::string json = config();
  fs::remove(weights);
  save_folder(place, reference("dit_softmax"));
  EXPECT_TRUE(fs::exists(weights));
  EXPECT_EQ(config(), json);
  // It stays where that fails. And that of another model is somebody's.
  fs::remove(weights);
  const OnTensor stop = [](const Weights::Item&) { throw std::invalid_argument("stop"); };
  EXPECT_THROW(save_folder(place, reference("dit_softmax"), stop), std::invalid_argument);
  EXPECT_THROW(save_folder(place, reference("dit_softmax_odd")), UsageError);
  EXPECT_EQ(config(), json);
  EXPECT_FALSE(fs::exists(weights));
}

TEST(Convert, AFolderThatIsAFileIsRefused) {
  const TemporaryFolder folder;
  write_text_file(folder / "dit", "x");
  EXPECT_NE(refusal([&] {
              save_folder(folder / "dit", reference("dit_softmax"));
            }).find("there is a file of that name"),
            std::string::npos);
  EXPECT_NE(refusal([&] { save_folder(folder / "none/dit", reference("dit_softmax")); }).find("No such file"),
            std::string::npos);
}

}  // namespace
}  // namespace linnet
