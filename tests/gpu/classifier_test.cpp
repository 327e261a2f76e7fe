// A classifier trained on the GPU against the same one trained on the CPU: losses, weights, and how it sees
// pictures when it has been saved.
#include "gpu/support.h"
#include "io/shapes.h"
#include "store/classifier_file.h"
#include "support/temporary_folder.h"
#include "train/train_classifier.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

class GpuClassifier : public testing::Test {
 protected:
  GpuClassifier() { write_data_set(folder_ / "shapes", 64, 16, 1); }

  TrainedClassifier train_on(const std::string& device, std::vector<ClassifierMetrics>& metrics) const {
    ClassifierTraining training;
    training.data = (folder_ / "shapes").string();
    training.model = {.input_size = 16, .hidden_size = 16, .depth = 2};
    training.optimizer.device = device;
    training.optimizer.steps = 12;
    training.optimizer.batch = 8;
    training.optimizer.warmup = 2;
    training.optimizer.ema = 0.5;
    return train_classifier(training, [&](const ClassifierMetrics& m) { metrics.push_back(m); });
  }

  TemporaryFolder folder_;
};

TEST_F(GpuClassifier, LearnsAsOnTheCpuAndIsReadEveryTenthStepAndAtTheEnd) {
  LINNET_NEED_GPU();
  std::vector<ClassifierMetrics> here, there;
  const TrainedClassifier expected = train_on("cpu", here), actual = train_on("cuda", there);
  ASSERT_EQ(here.size(), 12u);
  ASSERT_EQ(there.size(), 2u);
  for (const ClassifierMetrics& m : there)
    EXPECT_NEAR(m.loss, here.at(static_cast<size_t>(m.step - 1)).loss, 1e-3 * m.loss) << m.step;
  EXPECT_EQ(there.front().step, 10);
  EXPECT_EQ(there.back().step, 12);

  EXPECT_EQ(actual.class_names, expected.class_names);
  const auto of_cpu = nn::all_parameters(*expected.model), of_gpu = nn::all_parameters(*actual.model);
  for (size_t i = 0; i < of_cpu.size(); ++i) {
    ASSERT_TRUE(of_gpu[i].second->value.on_gpu()) << of_gpu[i].first;
    EXPECT_LT(relative_error(of_gpu[i].second->value.host(), values_of(of_cpu[i].second->value)), 2e-2)
        << of_gpu[i].first;
  }
}

TEST_F(GpuClassifier, SavedItJudgesAlikeOnEitherDevice) {
  LINNET_NEED_GPU();
  std::vector<ClassifierMetrics> metrics;
  const TrainedClassifier trained = train_on("cuda", metrics);
  save_classifier(folder_ / "c.safetensors", *trained.model, trained.class_names);
  const LoadedClassifier here = load_classifier(folder_ / "c.safetensors"),
                         there = load_classifier(folder_ / "c.safetensors", the_gpu);
  EXPECT_EQ(here.class_names, trained.class_names);
  const Tensor pictures = ops::test::random({8, 3, 16, 16}, 5);
  const auto judged_by = [&](const Classifier& model, const Tensor& x) {
    return model.logits(model.features(x)).host();
  };
  const Tensor expected = judged_by(*here.model, pictures);
  EXPECT_LT(relative_error(judged_by(*there.model, pictures.to(the_gpu)), values_of(expected)), 1e-4);
  // What was trained but for the file's 16 bits.
  EXPECT_LT(relative_error(judged_by(*trained.model, pictures.to(the_gpu)), values_of(expected)), 2e-2);
}

}  // namespace
}  // namespace linnet
