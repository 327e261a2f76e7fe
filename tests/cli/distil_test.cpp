// linnet train with presets, weights to start from and a teacher.
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/safetensors.h"
#include "store/dit_file.h"
#include "support/processor.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Presets, AreListedWithTheirNumbers) {
  const Result list = run({"train", "--list"});
  EXPECT_TRUE(succeeded(list));
  for (const std::string size : {"s", "b", "l", "xl"})
    for (const std::string kind : {"lit", "dit"})
      EXPECT_TRUE(contains(list.out, fmt::format("{}-{}-2-imagenet256", kind, size))) << list.out;
  for (const std::string& line : lines(list.out)) {
    if (!contains(line, "lit-xl-2-imagenet512")) continue;
    for (const std::string cell : {"LiT-XL/2", "4", "512", "128", "700000", "1e-4", "1.00/0.05", "DiT-XL/2"})
      EXPECT_TRUE(contains(line, cell)) << line;
  }
}

class TrainPreset : public testing::Test {
 protected:
  Result train(const Arguments& more) const {
    Arguments all = {"train"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }

  // Makes a preset's model small enough to train here.
  const Arguments small_ = {"data.replay=" + data_file("reference/training.lit.safetensors"),
                            "model.input_size=8",
                            "model.num_classes=3",
                            "model.hidden_size=16",
                            "model.depth=1",
                            "model.num_heads=2",
                            "train.batch=3",
                            "train.steps=2",
                            "output.dir=run"};
  TemporaryFolder folder_;
};

TEST_F(TrainPreset, TrainsWithoutAFile) {
  Arguments all = {"--preset", "lit-s-2-imagenet256"};
  all.insert(all.end(), small_.begin(), small_.end());
  EXPECT_EQ(train(all).code, 0);
  const std::string config = contents(folder_ / "run/config.toml");
  EXPECT_TRUE(contains(config, "lr = 0.0001")) << config;
  EXPECT_TRUE(contains(config, "mixer = 'lit'")) << config;
  EXPECT_TRUE(contains(config, "steps = 2\n")) << config;
}

TEST_F(TrainPreset, PrintsAFileThatMeansTheSame) {
  const Result print = train({"--preset", "lit-xl-2-imagenet256", "--print"});
  EXPECT_TRUE(succeeded(print));
  EXPECT_TRUE(contains(print.out, "preset = \"LiT-XL/2\"\n")) << print.out;
  EXPECT_TRUE(contains(print.out, "noise = 0.50\nvariance = 0.05\n")) << print.out;
  std::ofstream(folder_ / "own.toml") << print.out;
  Arguments by_file = {"own.toml"}, by_preset = {"--preset", "lit-xl-2-imagenet256"};
  std::string written;
  for (Arguments* all : {&by_file, &by_preset}) {
    all->insert(all->end(), small_.begin(), small_.end());
    EXPECT_EQ(train(*all).code, 0);
    const std::string config = contents(folder_ / "run/config.toml");
    EXPECT_TRUE(written.empty() || written == config) << config;
    written = config;
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(TrainPreset, SaysWhatMakesLatents) {
  ASSERT_EQ(run({"data", "shapes", "shapes", "--count", "64", "--size", "16"}, {folder_.path()}).code, 0);
  EXPECT_TRUE(failed(
      train({"--preset", "lit-s-2-imagenet256", "data.path=shapes"}), 1,
      "shapes: pictures have 3 channels, but the model takes latents of 4: let `linnet encode` make them"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
}

TEST_F(TrainPreset, RefusesWhatMakesNoSense) {
  EXPECT_TRUE(failed(train({"--preset", "lit-xl-imagenet256", "data.path=x"}), 2,
                     "did you mean \"lit-xl-2-imagenet256\"?"));
  EXPECT_TRUE(failed(train({"--preset", "pixart", "data.path=x"}), 2, "known: lit-s-2-imagenet256"));
  EXPECT_TRUE(failed(train({}), 2, "linnet train --list"));
  EXPECT_TRUE(failed(train({"data.path=x"}), 2, "linnet train --list"));
  EXPECT_TRUE(failed(train({"--print"}), 2, "--preset"));
  EXPECT_TRUE(failed(train({"--preset", "lit-s-2-imagenet256", "--print", "train.steps=1"}), 2, "--print"));
  for (const char* flag : {"--list", "--resume"})
    EXPECT_TRUE(failed(train({"--preset", "lit-s-2-imagenet256", "--print", flag}), 2, "excludes")) << flag;
  EXPECT_TRUE(failed(train({"--list", "--init", "builtin"}), 2, "excludes"));
  EXPECT_TRUE(
      failed(train({"--preset", "lit-s-2-imagenet256", "train.stepz=1", "data.path=x"}), 2, "\"steps\""));
  EXPECT_TRUE(failed(train({"--preset", "lit-s-2-imagenet256"}), 2, "data.path or data.replay"));
  EXPECT_TRUE(listing(folder_.path()).empty());
}

class Distil : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder_ / "distil.toml")
        << "[data]\nreplay = '" << data_file("reference/training.lit.safetensors") << "'\n"
        << "[train]\nsteps = 6\nbatch = 3\nprecision = 'f32'\n"
        << "[distil]\nnoise = 0.5\nvariance = 0.05\n[output]\ndir = 'run'\nlog_every = 1\nsave_every = 2\n";
    std::filesystem::copy(data_file("reference/training.lit.model.safetensors"), folder_ / "init.safetensors");
  }
  // Every run has a folder of its own, so that its configuration, which the checkpoint repeats, is the same.
  Result train(const std::string& name, const Arguments& more) const {
    std::filesystem::create_directories(folder_ / name);
    Arguments all = {"train", "../distil.toml"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_ / name});
  }
  Result distil(const std::string& name, const std::string& teacher, Arguments more = {}) const {
    more.insert(more.end(), {"--init", "../init.safetensors", "--teacher", teacher});
    return train(name, more);
  }
  std::string checkpoint(const std::string& name) const {
    return contents(folder_ / name / "run/checkpoint.safetensors");
  }
  // A teacher like the student but for one setting, its weights drawn.
  std::string other_teacher(const std::function<void(DiTConfig&)>& change) const {
    DiTConfig config = read_dit_config(Weights::open(folder_ / "init.safetensors"));
    change(config);
    return write_small_model(folder_ / "teacher.safetensors", config, false);
  }

  TemporaryFolder folder_;
  const std::string teacher_ = data_file("reference/training.distilled.teacher.safetensors");
};

TEST_F(Distil, ATeacherOfAnotherKindIsNamed) {
  EXPECT_TRUE(failed(distil("a", "builtin-text"), 1, "this is a model of texts, the run's one of classes"));
  EXPECT_TRUE(
      failed(train("a", {"--init", "builtin-text", "model.kind=dit"}), 2, "model.kind is \"dit\", but"));
}

TEST_F(Distil, TheModelIsThatOfTheWeightsToStartFrom) {
  const Result result = train("a", {"--init", "../init.safetensors"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "LiT (mixer lit), 2 blocks, width 16, 2 heads, 16 tokens")) << result.out;
  EXPECT_TRUE(contains(contents(folder_ / "a/run/config.toml"), "hidden_size = 16"));
  EXPECT_TRUE(
      failed(train("b", {"--init", "../init.safetensors", "model.depth=3"}), 2, "model.depth is 3, but 2 in"));
  EXPECT_TRUE(failed(train("b", {"--init", "../none.safetensors"}), 1, "none.safetensors"));
  EXPECT_TRUE(failed(train("b", {"--init", "../distil.toml"}), 1, "distil.toml"));
  EXPECT_TRUE(listing(folder_ / "b").empty());
}

TEST_F(Distil, ARunGoesOnWhenTheWeightsItStartedFromAreGone) {
  ASSERT_EQ(train("a", {"--init", "../init.safetensors", "train.steps=2"}).code, 0);
  std::filesystem::remove(folder_ / "init.safetensors");
  EXPECT_EQ(train("a", {"--init", "../init.safetensors", "--resume"}).code, 0);
  EXPECT_EQ(run({"train", "run/config.toml", "train.steps=7", "--resume"}, {folder_ / "a"}).code, 0);
}

TEST_F(Distil, TheModelInsideTheProgramIsAStartAndATeacher) {
  ASSERT_EQ(run({"data", "shapes", "shapes", "--count", "64", "--size", "32"}, {folder_.path()}).code, 0);
  std::ofstream(folder_ / "shapes.toml")
      << "[data]\npath = 'shapes'\n[train]\nsteps = 2\nbatch = 2\n[output]\ndir = 'run'\nlog_every = 1\n";
  const Arguments all = {"train", "shapes.toml", "--init", "builtin", "--teacher", "builtin"};
  const Result result = run(all, {folder_.path()});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "learns from builtin: LiT (mixer lit), 5 blocks, width 192")) << result.out;
  const auto first = nlohmann::json::parse(lines(contents(folder_ / "run/metrics.jsonl")).front());
  EXPECT_LT(first.at("noise_distance").get<double>(), 1e-3) << "it begins as its own teacher";
  EXPECT_EQ(run({"train", "run/config.toml", "train.steps=3", "--resume"}, {folder_.path()}).code, 0);
}

TEST_F(Distil, EveryTermOfTheLossIsShownAndLogged) {
  const Result result = distil("a", teacher_);
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "DiT (mixer softmax), 3 blocks, width 24, 3 heads")) << result.out;
  const std::string first = lines(result.err).front();
  for (const char* term : {"loss ", "mse ", "bound ", "  noise ", "  variance "})
    EXPECT_TRUE(contains(first, term)) << first;
  for (const std::string& line : lines(contents(folder_ / "a/run/metrics.jsonl"))) {
    const auto json = nlohmann::json::parse(line);
    const auto of = [&](const char* key) { return json.at(key).get<double>(); };
    EXPECT_GT(of("noise_distance"), 0);
    EXPECT_GT(of("variance_distance"), 0);
    const double sum = of("mse") + of("bound") + 0.5 * of("noise_distance") + 0.05 * of("variance_distance");
    EXPECT_NEAR(of("loss"), sum, 1e-5 * sum);
  }
}

TEST_F(Distil, WithoutATeacherThereAreOnlyTheTwoTermsOfDiT) {
  const Result result = train("a", {"--init", "../init.safetensors"});
  const std::string first = lines(result.err).front();
  EXPECT_TRUE(contains(first, "mse ") && contains(first, "bound ")) << first;
  EXPECT_FALSE(contains(first, "noise ")) << first;
  EXPECT_FALSE(contains(contents(folder_ / "a/run/metrics.jsonl"), "noise_distance"));
}

TEST_F(Distil, AResumedRunIsTheUninterruptedOneBitForBit) {
  ASSERT_EQ(distil("whole", teacher_).code, 0);
  ASSERT_EQ(distil("parts", teacher_, {"train.steps=3"}).code, 0);
  ASSERT_EQ(distil("parts", teacher_, {"--resume"}).code, 0);
  EXPECT_EQ(checkpoint("whole"), checkpoint("parts"));
  ASSERT_EQ(train("plain", {"--init", "../init.safetensors"}).code, 0);
  EXPECT_NE(checkpoint("whole"), checkpoint("plain")) << "the teacher taught nothing";
}

TEST_F(Distil, ARunWithATeacherDoesNotGoOnWithoutIt) {
  ASSERT_EQ(distil("a", teacher_, {"train.steps=3"}).code, 0);
  const std::string kept = checkpoint("a");
  EXPECT_TRUE(failed(train("a", {"--init", "../init.safetensors", "--resume"}), 2,
                     "this run learns from a teacher; go on with --teacher " + teacher_));
  EXPECT_EQ(checkpoint("a"), kept);
}

TEST_F(Distil, TeachersThatDoNotFitAreRefusedWithWhatTheyAreAndWhatIsWanted) {
  EXPECT_TRUE(failed(distil("a", "../none.pt"), 1, "none.pt"));
  EXPECT_TRUE(failed(distil("a", "../distil.toml"), 1, "distil.toml"));
  EXPECT_TRUE(
      failed(distil("a", data_file("reference/random.safetensors")), 1, "not the weights of a DiT or LiT"));
  EXPECT_TRUE(
      failed(distil("a", other_teacher([](DiTConfig& c) { c.input_size = 16; })), 1,
             "teacher.safetensors: the teacher takes 16x16 in 4 channels, the student 8x8 in 4 channels"));
  EXPECT_TRUE(
      failed(distil("a", other_teacher([](DiTConfig& c) { c.num_classes = 5; })), 1,
             "teacher.safetensors: the teacher knows 5 classes and none, the student 3 classes and none"));
  EXPECT_TRUE(failed(distil("a", other_teacher([](DiTConfig& c) { c.learn_sigma = false; })), 1,
                     "teacher.safetensors: the teacher predicts epsilon, the student epsilon and variance"));
  EXPECT_TRUE(failed(distil("a", teacher_, {"distil.precision=int4"}), 2, "distil.precision"));
  EXPECT_TRUE(listing(folder_ / "a").empty());
}

TEST_F(Distil, ATeacherMayBeAnyFileThatTakesTheSameInput) {
  std::vector<std::string> precisions = product_names();
  precisions.emplace_back("auto");
  for (const std::string& precision : precisions)
    EXPECT_EQ(distil(precision, teacher_, {"distil.precision=" + precision, "train.steps=1"}).code, 0)
        << precision;
  EXPECT_EQ(
      distil("narrow", other_teacher([](DiTConfig& c) { c.hidden_size = 8, c.depth = 1; }), {"train.steps=1"})
          .code,
      0);
}

}  // namespace
}  // namespace linnet::test
