// A run on the GPU against the same run on the CPU: losses, weights, and a checkpoint that goes from one to the
// other.
#include "train/trainer.h"

#include "gpu/support.h"
#include "io/latents.h"
#include "io/safetensors.h"
#include "io/tokenizer.h"
#include "pipeline/text_encoding.h"
#include "store/t5_file.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

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

// Of a model of texts.
class RandomTexts : public RandomData {
 public:
  Batch batch(int64_t step) const override {
    Batch batch = RandomData::batch(step);
    batch.y = {};
    batch.ids = {{3, 4, 5, 1}, {1}, {7, 3, 6, 2, 9, 1}, {4 + step, 3, 1}};
    return batch;
  }
};

// `model` says what is trained, `more` says more about [train].
TrainConfig config_of(std::string_view model, const std::string& device, const std::string& more) {
  return parse_train_config(fmt::format(R"(
[data]
path = 'none'
{}
[distil]
precision = 'f32'
[train]
steps = 10
batch = 4
lr = 1e-3
ema = 0.9
clip = 1.0
precision = 'f32'
device = '{}'
{}
)",
                                        model, device, more),
                            {});
}

TrainConfig config_on(const std::string& device, const std::string& more = "") {
  return config_of(R"(
[model]
input_size = 8
patch_size = 2
in_channels = 3
hidden_size = 32
depth = 2
num_heads = 2
num_classes = 3
mixer = 'lit'
)",
                   device, more);
}

constexpr const char* tokenizer = LINNET_TEST_DATA "/tokenizer/spiece.model";

// `text` says more about its encoder, `more` about [train].
TrainConfig config_of_texts_on(const std::string& device, const std::string& text,
                               const std::string& more = "") {
  return config_of(R"(
[model]
kind = 'pixart'
sample_size = 8
patch_size = 2
in_channels = 3
hidden_size = 32
depth = 2
num_heads = 2
num_cross_heads = 2
caption_channels = 32
caption_tokens = 8
learn_sigma = false
mixer = 'lit'
[text]
tokenizer = ')" + std::string(tokenizer) +
                       "'\n" + text,
                   device, more);
}

// An encoder for config_of_texts_on, its matrices in f32 or in 8 bits.
void write_encoder(const std::filesystem::path& folder, DType dtype) {
  T5Encoder encoder({.vocabulary = Tokenizer::open(tokenizer).size(),
                     .width = 32,
                     .hidden = 64,
                     .depth = 2,
                     .heads = 2,
                     .head_size = 16});
  nn::initialize(encoder, 11);
  encoder.visit("", [&](const std::string& name, nn::Parameter& p) {
    if (dtype == DType::i8 && T5Encoder::may_be_in_8_bits(name, p.shape)) nn::quantize(p);
  });
  std::filesystem::create_directories(folder);
  save_t5(folder, encoder, DType::f32);
}

// Counts how often the CPU waits for the GPU: for something to come back, or for all to be done.
class Waits {
 public:
  Waits() : api_(const_cast<GpuApi&>(gpu())) {
    count_ = 0;
    real_ = api_;
    api_.download = [](void* to, const void* from, size_t bytes) {
      ++count_;
      real_.download(to, from, bytes);
    };
    api_.synchronize = [] {
      ++count_;
      real_.synchronize();
    };
  }
  ~Waits() { api_ = real_; }
  Waits(const Waits&) = delete;
  Waits& operator=(const Waits&) = delete;
  int count() const { return count_; }

 private:
  static inline int count_ = 0;
  static inline GpuApi real_{};
  GpuApi& api_;
};

// A teacher of which nothing is drawn as zero, which would teach nothing.
std::shared_ptr<Trainee> teacher_for(const TrainConfig& config) {
  std::shared_ptr<Trainee> teacher = make_trainee(config);
  nn::initialize(*teacher, 7);
  teacher->visit("", [](const std::string&, nn::Parameter& p) {
    if (p.learned() && p.init.kind == nn::Init::Kind::zero)
      p.value = ops::test::random(p.shape, 8, DType::f32, 0.1f);
  });
  return teacher;
}

void expect_alike(int64_t steps, const BatchSource& data, Trainer& here, Trainer& there) {
  for (int64_t step = 0; step < steps; ++step) {
    const StepMetrics expected = here.step(data.batch(step)), actual = there.step(data.batch(step));
    EXPECT_NEAR(actual.loss, expected.loss, 1e-3 * expected.loss) << step;
    EXPECT_NEAR(actual.gradient_norm, expected.gradient_norm, 1e-2 * expected.gradient_norm) << step;
  }
  const auto expected = nn::learned_parameters(here.averaged()),
             actual = nn::learned_parameters(there.averaged());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(actual[i].second->value.on_gpu()) << expected[i].first;
    EXPECT_LT(relative_error(actual[i].second->value.host(), values_of(expected[i].second->value)), 2e-2)
        << expected[i].first;
  }
}

void expect_alike(int64_t steps, const std::string& more) {
  SCOPED_TRACE(more);
  const RandomData data;
  Trainer here(config_on("cpu", more), data), there(config_on("cuda", more), data);
  expect_alike(steps, data, here, there);
}

TEST(GpuTraining, TenStepsAgreeWithTheCpu) {
  LINNET_NEED_GPU();
  expect_alike(10, "");
}

TEST(GpuTraining, OtherWaysToTrainAgreeWithTheCpu) {
  LINNET_NEED_GPU();
  expect_alike(3, "accumulate = 2\ncheckpointing = true");
  expect_alike(3, "optimizer = 'came'");
  expect_alike(3, "optimizer = 'muon'");
}

TEST(GpuTraining, ATextEncoderIsTrainedAlong) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  const std::string own = "heads = 2\nhidden = 32\n";
  Trainer here(config_of_texts_on("cpu", own), data), there(config_of_texts_on("cuda", own), data);
  expect_alike(5, data, here, there);
}

TEST(GpuTraining, AFrozenTextEncoderWorksOnTheDeviceOfTheRun) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  for (const DType dtype : {DType::f32, DType::i8}) {
    SCOPED_TRACE(name_of(dtype));
    const TemporaryFolder folder;
    write_encoder(folder / "t5", dtype);
    const std::string text = fmt::format("encoder = '{}'\n", (folder / "t5").string());
    const TrainConfig on_cpu = config_of_texts_on("cpu", text, "accumulate = 2"),
                      on_gpu = config_of_texts_on("cuda", text, "accumulate = 2");
    Trainer here(on_cpu, data), there(on_gpu, data);
    here.learn_from(teacher_for(on_cpu));
    there.learn_from(teacher_for(on_cpu));
    expect_alike(4, data, here, there);
    const TextStates expected = encode_texts(*here.frozen_encoder(), data.batch(0).ids),
                     actual = encode_texts(*there.frozen_encoder(), data.batch(0).ids);
    ASSERT_TRUE(actual.states.on_gpu());
    EXPECT_LT(relative_error(actual.states.host(), values_of(expected.states)), 1e-4);
    const Waits waits;
    there.begin_step(data.batch(4));
    EXPECT_EQ(waits.count(), 0);
  }
}

// Which bring their texts' states.
TEST(GpuTraining, WithLatentsAFrozenTextEncoderLeavesTheMemoryOfTheGpuToTheTraining) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  const TemporaryFolder folder;
  write_encoder(folder / "t5", DType::f32);
  TrainConfig config = config_of_texts_on("cuda", fmt::format("encoder = '{}'\n", (folder / "t5").string()));
  write_safetensors(shard_path(folder.path(), 0, 1), NamedTensors{});
  config.data.path = folder.path().string();
  const Trainer trainer(config, data);
  EXPECT_FALSE(encode_texts(*trainer.frozen_encoder(), data.batch(0).ids).states.on_gpu());
}

TEST(GpuTraining, ATeacherTeachesOnTheDeviceOfTheRun) {
  LINNET_NEED_GPU();
  const RandomData data;
  const auto losses_on = [&](const std::string& device) {
    Trainer trainer(config_on(device), data);
    trainer.learn_from(teacher_for(config_on("cpu")));
    std::vector<double> losses;
    for (int64_t step = 0; step < 3; ++step) {
      const StepMetrics m = trainer.step(data.batch(step));
      losses.insert(losses.end(), {m.loss, m.noise_distance, m.variance_distance});
    }
    return losses;
  };
  EXPECT_LT(relative_error(losses_on("cuda"), losses_on("cpu")), 1e-3);
}

TEST(GpuTraining, ACheckpointGoesFromOneDeviceToTheOther) {
  LINNET_NEED_GPU();
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  const RandomData data;
  Trainer here(config_on("cpu"), data), there(config_on("cuda"), data);
  for (int64_t step = 0; step < 3; ++step) there.step(data.batch(step));
  there.save_checkpoint(path);
  here.load_checkpoint(path);
  EXPECT_EQ(here.steps_done(), 3);
  const auto expected = nn::learned_parameters(there.model()), actual = nn::learned_parameters(here.model());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(ops::test::same_bytes(expected[i].second->value.host(), actual[i].second->value));
  here.save_checkpoint(path);
  there.load_checkpoint(path);
  EXPECT_NEAR(there.step(data.batch(3)).loss, here.step(data.batch(3)).loss, 1e-3);
}

}  // namespace
}  // namespace linnet
