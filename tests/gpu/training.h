// Runs on random pictures, for tests of training on the GPU.
#pragma once

#include "gpu/models.h"
#include "train/trainer.h"

namespace linnet::test {

class RandomData : public BatchSource {
 public:
  Batch batch(int64_t step) const override {
    Generator generator(static_cast<uint64_t>(step) + 100);
    Batch batch;
    batch.x0 = generator.normal({4, 3, 8, 8});
    batch.noise = generator.normal({4, 3, 8, 8});
    batch.t = Tensor::from(std::vector<int64_t>{0, 10 + step, 500, 999});
    batch.y = Tensor::from(std::vector<int64_t>{0, 1, 2, 3});
    return batch;
  }
};

/// How products are computed, and `more` that [train] says.
struct Ways {
  std::string more = "";
  std::string precision = "f32";
  std::string mixer = "lit";
};

inline TrainConfig config_of(std::string_view model, const std::string& device, const Ways& ways) {
  return parse_train_config(fmt::format(R"(
[data]
path = 'none'
{}
mixer = '{}'
[distil]
precision = 'f32'
[train]
steps = 10
batch = 4
lr = 1e-3
ema = 0.9
clip = 1.0
precision = '{}'
device = '{}'
{}
)",
                                        model, ways.mixer, ways.precision, device, ways.more),
                            {});
}

/// A run that begins with no weight at zero: behind a last layer of zeros no block would matter.
class DrawnTrainer : public Trainer {
 public:
  DrawnTrainer(const TrainConfig& config, const BatchSource& data) : Trainer(config, data) {
    const auto drawn = make_trainee(config);
    draw_all(*drawn);
    start_from(*drawn);
  }
};

/// The same steps. In bf16 a weight whose gradient is next to nothing may step either way, so that losses alone
/// are compared.
inline void expect_alike(int64_t steps, const BatchSource& data, Trainer& here, Trainer& there,
                         const std::string& precision = "f32") {
  const bool exact = precision == "f32";
  for (int64_t step = 0; step < steps; ++step) {
    const StepMetrics expected = here.step(data.batch(step)), actual = there.step(data.batch(step));
    EXPECT_NEAR(actual.loss, expected.loss, (exact ? 1e-3 : 5e-3) * expected.loss) << step;
    EXPECT_NEAR(actual.gradient_norm, expected.gradient_norm, (exact ? 1e-2 : 2e-2) * expected.gradient_norm)
        << step;
  }
  if (!exact) return;
  const auto expected = nn::learned_parameters(here.averaged()),
             actual = nn::learned_parameters(there.averaged());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(actual[i].second->value.on_gpu()) << expected[i].first;
    EXPECT_LT(ops::test::relative_error(actual[i].second->value.host(),
                                        ops::test::values_of(expected[i].second->value)),
              2e-2)
        << expected[i].first;
  }
}

/// A teacher of which nothing is drawn as zero, which would teach nothing.
inline std::shared_ptr<Trainee> teacher_for(const TrainConfig& config) {
  std::shared_ptr<Trainee> teacher = make_trainee(config);
  draw_all(*teacher);
  return teacher;
}

}  // namespace linnet::test
