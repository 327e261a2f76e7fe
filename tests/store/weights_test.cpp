// Weights by name: what is asked of all of them, whatever file they come from.
#include "store/weights.h"

#include <fstream>

#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using test::refusal;

Weights some() {
  Weights weights("file");
  const auto read = [] { return Tensor(); };
  weights.add({"outer.inner.weight", "f32", DType::f32, {2, 3}, read});
  weights.add({"outer.inner.scale", "bf16", DType::bf16, {5}, read});
  weights.add({"strange", "F8_E4M3", std::nullopt, {7}, read});
  return weights;
}

TEST(Weights, CountTheBytesOfKnownTypes) { EXPECT_EQ(some().bytes(), 2u * 3 * 4 + 5 * 2); }

TEST(Weights, SayWhatStandsBeforeAName) {
  EXPECT_EQ(some().prefix_before("inner.weight"), "outer.");
  EXPECT_EQ(some().prefix_before("strange"), "");
  EXPECT_EQ(some().prefix_before("bias"), std::nullopt);
}

TEST(Weights, AreNamedOnceInASentence) {
  EXPECT_EQ(some().naming_source([] { return 5; }), 5);
  EXPECT_EQ(refusal([] { some().naming_source([] { fail("wrong"); }); }), "file: wrong");
  EXPECT_EQ(refusal([] { some().naming_source([] { some().item("a"); }); }), "file: tensor 'a' is missing");
  EXPECT_EQ(refusal([] { some().naming_source([] { fail("files are wrong"); }); }), "file: files are wrong");
  EXPECT_THROW(some().naming_source([] { throw OutOfMemory("no memory"); }), OutOfMemory);
}

// The names of the model that is chosen, and of the part that it lies in.
std::vector<std::string> chosen_of(const std::vector<std::string>& names, Choice choice) {
  Weights file("file");
  for (const std::string& name : names)
    file.add({name, "f32", DType::f32, {1}, [] { return Tensor::zeros({1}); }});
  const Weights model = model_weights(file, choice);
  std::vector<std::string> result = {model.part()};
  for (const Weights::Item& item : model.items()) result.push_back(item.name);
  return result;
}

TEST(ModelWeights, AreChosenByTheNamesThatTrainersGiveThem) {
  using Names = std::vector<std::string>;
  for (const std::string average : {"ema", "state_dict_ema", "ema_model", "ema_state_dict", "model_ema"})
    for (const std::string raw : {"model", "state_dict", "module", "model_state_dict"}) {
      const Names both = {raw + "/w", average + "/w", "optimizer/w"};
      EXPECT_EQ(chosen_of(both, Choice::ema), (Names{average, "w"})) << raw;
      EXPECT_EQ(chosen_of(both, Choice::raw), (Names{raw, "w"})) << average;
    }
}

// torch.optim.swa_utils.AveragedModel's.
TEST(ModelWeights, OfAnAverageLeaveItsCountOut) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(chosen_of({"n_averaged", "module.w"}, Choice::ema), (Names{"", "w"}));
  EXPECT_EQ(chosen_of({"ema/n_averaged", "ema/module.w"}, Choice::ema), (Names{"ema", "w"}));
}

TEST(Weights, OfAnIndexThatNamesItselfAreRefused) {
  const TemporaryFolder folder;
  const std::string name = "pytorch_model.bin.index.json";
  std::ofstream(folder / name) << fmt::format(R"({{"weight_map": {{"w": "{}"}}}})", name);
  EXPECT_NE(refusal([&] { Weights::open(folder.path()); }).find(name + ": "), std::string::npos);
}

}  // namespace
}  // namespace linnet
