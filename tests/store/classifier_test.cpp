// The classifier: what it computes, as a plain PyTorch copy does, how it is described, and its file.
#include "store/classifier_file.h"

#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "store/dit_file.h"
#include "store/parameters.h"
#include "support/compare.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

ClassifierConfig tiny() {
  ClassifierConfig config;
  config.input_size = 12;
  config.hidden_size = 20;
  config.num_heads = 2;
  config.num_classes = 5;
  return config;
}

TEST(Classifier, ComputesWhatPyTorchDoes) {
  const auto file = SafetensorsFile::open(LINNET_TEST_DATA "/reference/classifier.safetensors");
  Classifier model(tiny());
  model.visit("", [&](const std::string& name, nn::Parameter& p) {
    nn::assign(name, p, file.tensor("model." + name));
  });
  const Tensor features = model.features(file.tensor("x"));
  EXPECT_LT(test::relative_error(features, file.tensor("features")), 1e-5);
  EXPECT_LT(test::relative_error(model.logits(features), file.tensor("logits")), 1e-5);
}

TEST(Classifier, ItsConfigurationComesBack) { EXPECT_EQ(classifier_config_from_json(to_json(tiny())), tiny()); }

TEST(Classifier, RefusesWhatIsNoConfiguration) {
  std::string other = to_json(tiny());
  other.replace(other.find("classifier"), 10, "dit");
  for (const std::string& text : {std::string(), std::string("[]"), std::string("{}"), other})
    EXPECT_THROW(classifier_config_from_json(text), Error) << text;
  const auto impossible = [](auto change) {
    ClassifierConfig config = tiny();
    change(config);
    EXPECT_THROW(config.validate(), UsageError);
    EXPECT_THROW(classifier_config_from_json(to_json(config)), Error);
  };
  impossible([](ClassifierConfig& c) { c.patch_size = 5; });
  impossible([](ClassifierConfig& c) { c.hidden_size = 18; });
  impossible([](ClassifierConfig& c) { c.hidden_size = 1 << 30; });
  impossible([](ClassifierConfig& c) { c.num_heads = 3; });
  impossible([](ClassifierConfig& c) { c.depth = 0; });
  impossible([](ClassifierConfig& c) { c.num_classes = -1; });
}

TEST(Classifier, RefusesPicturesOfAnotherSize) {
  Classifier model(tiny());
  nn::initialize(model, 0);
  EXPECT_THROW(model.features(Tensor::zeros({1, 3, 16, 16})), Error);
  EXPECT_THROW(model.features(Tensor::zeros({1, 1, 12, 12})), Error);
}

TEST(Classifier, TheLikeliestClassHasTheLargestLogit) {
  EXPECT_EQ(likeliest(Tensor::from<float>(std::vector<float>{0, 2, 1, -1, -3, -2}).reshape({2, 3})),
            (std::vector<int64_t>{1, 0}));
}

TEST(ClassifierFile, HoldsWeightsInBf16AndNames) {
  const TemporaryFolder folder;
  Classifier model(tiny());
  nn::initialize(model, 3);
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  save_classifier(folder / "c", model, names, {{"note", "x"}});
  const LoadedClassifier loaded = load_classifier(folder / "c");
  EXPECT_EQ(loaded.model->config(), tiny());
  EXPECT_EQ(loaded.class_names, names);
  const Tensor x = Generator(1).normal({2, 3, 12, 12});
  EXPECT_LT(test::relative_error(loaded.model->features(x), model.features(x)), 2e-2);
  EXPECT_EQ(loaded.fingerprint, load_classifier(folder / "c").fingerprint);
  nn::initialize(model, 4);
  save_classifier(folder / "d", model, names);
  EXPECT_NE(loaded.fingerprint, load_classifier(folder / "d").fingerprint);
}

TEST(ClassifierFile, RefusesAnotherModel) {
  const TemporaryFolder folder;
  DiT dit(test::tiny_dit());
  nn::initialize(dit, 1);
  save_dit(folder / "dit", dit, DType::f32);
  try {
    load_classifier(folder / "dit");
    FAIL() << "a DiT was taken for a classifier";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("this is no classifier"), std::string::npos) << error.what();
  }
}

TEST(ClassifierFile, RefusesTensorsThatAreMissingOrTooMany) {
  const TemporaryFolder folder;
  Classifier model(tiny());
  nn::initialize(model, 3);
  auto tensors = values_of(nn::all_parameters(model), DType::f32);
  const std::map<std::string, std::string> metadata{{"linnet.classifier", to_json(tiny())}};
  tensors.push_back({"more", DType::f32, {1}, [] { return Tensor::zeros({1}); }});
  write_safetensors(folder / "more", tensors, metadata);
  EXPECT_THROW(load_classifier(folder / "more"), Error);
  tensors.resize(tensors.size() - 2);
  write_safetensors(folder / "fewer", tensors, metadata);
  EXPECT_THROW(load_classifier(folder / "fewer"), Error);
}

}  // namespace
}  // namespace linnet
