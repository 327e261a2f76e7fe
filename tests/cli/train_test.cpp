// linnet train: runs that end, are stopped, are killed, and go on.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "cli/command.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

class Train : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(run({"data", "shapes", "shapes", "--count", "128", "--size", "16"}, {folder_.path()}).code, 0);
    std::ofstream(folder_ / "tiny.toml")
        << "[model]\nmixer = 'lit'\ninput_size = 16\npatch_size = 4\nin_channels = 3\n"
           "hidden_size = 24\ndepth = 1\nnum_heads = 2\nnum_classes = 64\n"
           "[data]\npath = '../shapes'\n[train]\nsteps = 6\nbatch = 4\n"
           "[output]\ndir = 'run'\nlog_every = 1\nsave_every = 2\n";
  }

  // Every run has a folder to work in, so that its configuration, which the checkpoint repeats, is the same.
  std::filesystem::path place(const std::string& name) const {
    std::filesystem::create_directories(folder_ / name);
    return folder_ / name;
  }
  static Arguments arguments(const Arguments& more) {
    Arguments all = {"train", "../tiny.toml"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Result train(const std::string& name, const Arguments& more = {}) const {
    return run(arguments(more), {place(name)});
  }
  std::string checkpoint(const std::string& name) const {
    return contents(folder_ / name / "run/checkpoint.safetensors");
  }
  bool checkpoint_is_missing(const std::string& name) const {
    return !std::filesystem::exists(folder_ / name / "run/checkpoint.safetensors");
  }
  std::vector<int64_t> logged_steps(const std::string& name) const {
    std::vector<int64_t> steps;
    for (const std::string& line : lines(contents(folder_ / name / "run/metrics.jsonl")))
      steps.push_back(nlohmann::json::parse(line).at("step").get<int64_t>());
    return steps;
  }
  static std::vector<int64_t> counted(int64_t last) {
    std::vector<int64_t> steps;
    for (int64_t step = 1; step <= last; ++step) steps.push_back(step);
    return steps;
  }

  // A run that learns enough to tell its samples apart, of which it leaves a sheet.
  static Arguments with_a_sheet(const Arguments& more) {
    Arguments all = {"output.sample_every=6", "output.sample_steps=3", "train.lr=1e-2", "train.precision=f32"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // The same pictures by `linnet generate`, with the run's usual guidance.
  Image painted(const std::string& name, const Arguments& more) const {
    Arguments all = {"generate", "--steps", "3", "--cfg", "2", "--seed", "0", "-n", "64", "-o", "p.png"};
    all.insert(all.end(), {"--grid", "--columns", "8", "--batch", "64", "--dtype", "f32"});
    all.insert(all.end(), more.begin(), more.end());
    EXPECT_TRUE(succeeded(run(all, {folder_ / name})));
    return read_image(folder_ / name / "p.png");
  }

  TemporaryFolder folder_;
};

// The largest of all values' of two pictures; 256 if their sizes differ.
int difference(const Image& one, const Image& other) {
  int largest = one.rgb.size() == other.rgb.size() ? 0 : 256;
  for (size_t i = 0; i < std::min(one.rgb.size(), other.rgb.size()); ++i)
    largest = std::max(largest, std::abs(one.rgb[i] - other.rgb[i]));
  return largest;
}

// As OpenMP itself says, which reads it when it is loaded.
TEST_F(Train, ThreadsSpinForAShortWhileUnlessToldOtherwise) {
  const auto said = [&](const std::string& policy, const std::string& spinning) {
    const auto set = [](const char* name, const std::string& value) {
      value.empty() ? ::unsetenv(name) : ::setenv(name, value.c_str(), 1);
    };
    return run({"--version"}, {.folder = folder_.path(),
                               .in_child =
                                   [=] {
                                     ::setenv("OMP_DISPLAY_ENV", "verbose", 1);
                                     set("OMP_WAIT_POLICY", policy);
                                     set("GOMP_SPINCOUNT", spinning);
                                   }})
        .err;
  };
  EXPECT_NE(said("", "").find("GOMP_SPINCOUNT = '1000'"), std::string::npos) << said("", "");
  EXPECT_NE(said("", "77").find("GOMP_SPINCOUNT = '77'"), std::string::npos);
  EXPECT_EQ(said("active", "").find("GOMP_SPINCOUNT = '1000'"), std::string::npos);
}

// Beginning once more, it would have the first one's processor alone.
TEST_F(Train, BoundThreadsAreAsManyAsOtherwise) {
  const auto threads = [&](const char* bound) {
    const Surroundings where{place(*bound ? "bound" : "free"), [=] {
                               for (const char* name : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"})
                                 ::unsetenv(name);
                               if (*bound) ::setenv("OMP_PROC_BIND", bound, 1);
                             }};
    Process process(arguments({"train.steps=1000000", "output.save_every=1000000"}), where);
    process.wait_for("step 2 ");
    EXPECT_EQ(contents(fmt::format("/proc/{}/comm", process.id())), "linnet\n");
    const std::filesystem::directory_iterator tasks(fmt::format("/proc/{}/task", process.id()));
    return std::distance(begin(tasks), end(tasks));
  };
  EXPECT_EQ(threads("true"), threads(""));
}

TEST(TrainSettings, AreListed) {
  const Result list = run({"train", "--settings"});
  EXPECT_TRUE(succeeded(list));
  for (const char* line : {"[train]\n", "  accumulate           1  ", "  sample_prompts       []  "})
    EXPECT_NE(list.out.find(line), std::string::npos) << list.out;
  for (const char* other : {"a.toml", "--list", "--resume"})
    EXPECT_TRUE(failed(run({"train", "--settings", other}), 2, "excludes")) << other;
}

TEST_F(Train, LeavesAModelThatPaintsAndSaysWhatItDid) {
  const Result result = train("a");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("LiT (mixer lit), 1 block, width 24, 2 heads, 16 tokens"), std::string::npos)
      << result.out;
  EXPECT_NE(result.out.find("output in run"), std::string::npos) << result.out;
  EXPECT_EQ(listing(folder_ / "a/run"), (std::vector<std::string>{"checkpoint.safetensors", "config.toml",
                                                                  "metrics.jsonl", "model.safetensors"}));
  EXPECT_EQ(logged_steps("a"), counted(6));
  EXPECT_TRUE(succeeded(
      run({"generate", "-m", "run/model.safetensors", "-c", "red-star", "--steps", "2", "-o", "p.png"},
          {folder_ / "a"})));
  const Result info = run({"info", "run/checkpoint.safetensors"}, {folder_ / "a"});
  EXPECT_TRUE(succeeded(info));
  EXPECT_NE(info.out.find("Training checkpoint"), std::string::npos);
  for (const char* weights : {"ema", "raw"})
    EXPECT_TRUE(succeeded(run({"generate", "-m", "run/checkpoint.safetensors", "--weights", weights, "--steps",
                               "2", "-o", fmt::format("{}.png", weights)},
                              {folder_ / "a"})));
  const auto hash = [&](const char* file) {
    return read_image_notes(folder_ / "a" / file).text.at("model-hash");
  };
  EXPECT_EQ(hash("ema.png"), hash("p.png"));
  EXPECT_NE(hash("raw.png"), hash("p.png"));
}

TEST_F(Train, ASheetOfSamplesIsWhatTheAveragedModelPaints) {
  const Result result = train("a", with_a_sheet({"train.ema=0.5"}));
  ASSERT_EQ(result.code, 0) << result.err;
  const Image sheet = read_image(folder_ / "a/run/samples/step-0000006.png");
  EXPECT_LE(difference(sheet, painted("a", {"-m", "run/model.safetensors"})), 1);
  EXPECT_GT(difference(sheet, painted("a", {"-m", "run/checkpoint.safetensors", "--weights", "raw"})), 8);
}

// Of 128 classes every other one.
TEST_F(Train, ASheetOfSamplesShowsClassesEvenlyChosen) {
  using namespace std::filesystem;
  const std::vector<path> shapes(directory_iterator(folder_ / "shapes"), {});
  for (const path& shape : shapes)
    if (is_directory(shape)) copy(shape, shape.string() + "-again");
  const Result result = train("a", with_a_sheet({"train.ema=0", "model.num_classes=128"}));
  ASSERT_EQ(result.code, 0) << result.err;
  const Image sheet = read_image(folder_ / "a/run/samples/step-0000006.png");
  const auto painted_classes = [&](int64_t stride) {
    std::string classes = "0";
    for (int64_t i = 1; i < 64; ++i) classes += fmt::format(",{}", i * stride);
    return painted("a", {"-m", "run/model.safetensors", "--class", classes});
  };
  EXPECT_LE(difference(sheet, painted_classes(2)), 1);
  EXPECT_GT(difference(sheet, painted_classes(1)), 8);
}

TEST_F(Train, TheLastStepIsLoggedAndShownWhateverItsNumber) {
  const Result result = train("a", with_a_sheet({"output.log_every=4", "output.sample_every=4"}));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(logged_steps("a"), (std::vector<int64_t>{4, 6}));
  EXPECT_EQ(listing(folder_ / "a/run/samples"),
            (std::vector<std::string>{"step-0000004.png", "step-0000006.png"}));
}

TEST_F(Train, ASettingThatWouldDoNothingIsRefusedOrRemarkedOnAtTheBeginning) {
  EXPECT_TRUE(failed(train("a", {"train.momentum=0.9"}), 2,
                     "nothing would come of train.momentum, as train.optimizer is not \"muon\""));
  EXPECT_TRUE(listing(folder_ / "a").empty());
  std::ofstream(folder_ / "tiny.toml", std::ios::app) << "[distil]\nnoise = 1.0\n";
  const Result result = train("a");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("nothing comes of distil.noise, as there is no distil.teacher\n"),
            std::string::npos)
      << result.out;
}

TEST_F(Train, ItsCheckpointKnowsTheClassesByName) {
  ASSERT_EQ(train("a").code, 0);
  const Surroundings there{folder_ / "a"};
  const std::string checkpoint = "run/checkpoint.safetensors";
  const Result info = run({"info", checkpoint, "--find-class", "red-star"}, there);
  EXPECT_TRUE(succeeded(info));
  for (const char* weights : {"ema", "raw"})
    EXPECT_TRUE(succeeded(run({"generate", "-m", checkpoint, "--weights", weights, "--class", "red-star",
                               "--steps", "1", "-o", "p.png"},
                              there)));
  for (const Arguments& made : {Arguments{"inherit", "--from", checkpoint, "-o", "other.safetensors"},
                                Arguments{"convert", checkpoint, "-o", "other.safetensors"}}) {
    EXPECT_TRUE(succeeded(run(made, there)));
    const Result other = run({"info", "other.safetensors", "--find-class", "red-star"}, there);
    EXPECT_TRUE(succeeded(other));
    EXPECT_EQ(other.out, info.out);
  }
}

TEST_F(Train, AResumedRunIsTheUninterruptedOneBitForBit) {
  ASSERT_EQ(train("whole").code, 0);
  ASSERT_EQ(train("parts", {"train.steps=3"}).code, 0);
  ASSERT_EQ(train("parts", {"--resume"}).code, 0);
  EXPECT_EQ(checkpoint("whole"), checkpoint("parts"));
  EXPECT_EQ(logged_steps("parts"), counted(6));
}

TEST_F(Train, ARunInterruptedAnywhereGoesOnBitForBit) {
  const std::string steps = "train.steps=60", save = "output.save_every=25";
  ASSERT_EQ(train("whole", {steps, save}).code, 0);
  std::mt19937 random(std::random_device{}());
  Arguments more = {steps, save};
  for (int i = 0; i < 3; ++i) {
    Process process(arguments(more), {place("parts")});
    process.wait_for("step ");
    ::usleep(random() % 100'000);
    process.send(SIGINT);
    const int code = process.wait().code;
    ASSERT_TRUE(code == 128 + SIGINT || code == 0) << code;  // 0: it was done already
    if (i == 0) more.push_back("--resume");
  }
  ASSERT_EQ(train("parts", more).code, 0);
  EXPECT_EQ(checkpoint("whole"), checkpoint("parts"));
  EXPECT_EQ(logged_steps("parts"), counted(60));
}

// Or a script would take what is there for a model that is done.
TEST_F(Train, AnInterruptedRunIsNoSuccess) {
  for (const int signal : {SIGINT, SIGHUP, SIGXCPU}) {
    Process process(arguments({"train.steps=1000000"}), {place(fmt::format("a{}", signal))});
    process.wait_for("step ");
    process.send(signal);
    const Result result = process.wait();
    EXPECT_EQ(result.code, 128 + signal);
    EXPECT_NE(result.err.find("go on with --resume"), std::string::npos) << result.err;
  }
}

// As with "2>&1 | tee log", where Ctrl-C ends both.
TEST_F(Train, AnInterruptedRunIsSavedThoughItsReaderIsGone) {
  Process process(arguments({"train.steps=1000000", "output.save_every=1000000"}), {place("a")});
  process.wait_for("step ");
  process.send(SIGSTOP);
  process.stop_listening();
  process.send(SIGINT);
  process.send(SIGCONT);
  EXPECT_EQ(process.wait().code, 128 + SIGINT);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "a/run/checkpoint.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "a/run/model.safetensors"));
}

TEST_F(Train, ARunKilledWhileSavingLosesOnlyStepsSinceTheCheckpoint) {
  const std::string steps = "train.steps=60", save = "output.save_every=1";
  ASSERT_EQ(train("whole", {steps, save}).code, 0);
  std::mt19937 random(std::random_device{}());
  int64_t before = 0;
  for (int i = 0; i < 8; ++i) {
    const bool resumed = std::filesystem::exists(folder_ / "parts/run/checkpoint.safetensors");
    Arguments more = {steps, save};
    if (resumed) more.push_back("--resume");
    Process process(arguments(more), {place("parts")});
    process.wait_for("step ");
    ::usleep(random() % 60'000);
    process.send(SIGKILL);
    process.wait();
    if (!std::filesystem::exists(folder_ / "parts/run/checkpoint.safetensors")) continue;
    const auto file = SafetensorsFile::open(folder_ / "parts/run/checkpoint.safetensors");
    const int64_t step = std::stoll(file.metadata().at("linnet.step"));
    EXPECT_GE(step, before);
    before = step;
  }
  ASSERT_GT(before, 0);
  ASSERT_EQ(train("parts", {steps, save, "--resume"}).code, 0);
  EXPECT_EQ(checkpoint("whole"), checkpoint("parts"));
  EXPECT_EQ(logged_steps("parts"), counted(60));
}

TEST_F(Train, WhatARunLoggedThatLeftNoCheckpointIsForgotten) {
  Process process(arguments({"train.steps=1000000", "output.save_every=1000000"}), {place("a")});
  process.wait_for("step 2 ");
  process.send(SIGKILL);
  process.wait();
  ASSERT_EQ(listing(folder_ / "a/run"), (std::vector<std::string>{"config.toml", "metrics.jsonl", "run.lock"}));
  ASSERT_EQ(train("a").code, 0);
  EXPECT_EQ(logged_steps("a"), counted(6));
}

TEST_F(Train, TwoRunsDoNotWorkInOneFolder) {
  Process process(arguments({"train.steps=1000000"}), {place("a")});
  process.wait_for("step 2 ");
  while (checkpoint_is_missing("a")) ::usleep(1000);
  const std::string config = contents(folder_ / "a/run/config.toml");
  EXPECT_TRUE(failed(train("a", {"--resume", "train.lr=1e-3"}), 2, "another run is working in run"));
  EXPECT_EQ(contents(folder_ / "a/run/config.toml"), config);
  process.send(SIGINT);
  EXPECT_EQ(process.wait().code, 128 + SIGINT);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a/run/run.lock"));
  const auto step = std::to_string(logged_steps("a").size() + 1);
  EXPECT_EQ(train("a", {"--resume", "train.steps=" + step}).code, 0);
}

TEST_F(Train, ANewRunWritesOverNothingThatNoRunWrote) {
  for (const char* name : {"model.safetensors", "config.toml", "metrics.jsonl"}) {
    std::filesystem::create_directories(place(name) / "run");
    std::ofstream(folder_ / name / "run" / name) << "{\"step\":1}\n";
    EXPECT_TRUE(failed(train(name), 2, fmt::format("run/{} ", name)));
    EXPECT_EQ(listing(folder_ / name / "run"), std::vector<std::string>{name});
    EXPECT_EQ(contents(folder_ / name / "run" / name), "{\"step\":1}\n");
  }
}

TEST_F(Train, ANewRunDoesNotWriteOverItsConfiguration) {
  ASSERT_EQ(train("first", {"train.steps=1"}).code, 0);
  std::filesystem::create_directories(place("a") / "run");  // with a copy of what a run wrote
  std::filesystem::copy_file(folder_ / "first/run/config.toml", folder_ / "a/run/config.toml");
  const std::string config = contents(folder_ / "a/run/config.toml");
  EXPECT_TRUE(failed(run({"train", "./run/config.toml", "train.steps=2"}, {folder_ / "a"}), 2,
                     "run/config.toml is the configuration that was given"));
  EXPECT_EQ(contents(folder_ / "a/run/config.toml"), config);
}

TEST_F(Train, ABrokenPictureLosesNoSteps) {
  ASSERT_EQ(train("whole", {"train.steps=40"}).code, 0);
  const auto picture = folder_ / "shapes" / "red-star" / listing(folder_ / "shapes/red-star").front();
  const std::string intact = contents(picture);
  std::filesystem::resize_file(picture, 30);
  const Result result = train("parts", {"train.steps=40", "output.save_every=1000"});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find(picture.filename().string()), std::string::npos) << result.err;
  const int64_t done = std::ssize(logged_steps("parts"));
  EXPECT_NE(result.err.find(fmt::format("step {} is saved: go on with --resume", done)), std::string::npos)
      << result.err;
  std::ofstream(picture) << intact;
  ASSERT_EQ(train("parts", {"train.steps=40", "--resume"}).code, 0);
  EXPECT_EQ(logged_steps("parts"), counted(40));
  EXPECT_EQ(contents(folder_ / "parts/run/model.safetensors"),
            contents(folder_ / "whole/run/model.safetensors"));
}

TEST_F(Train, DamagedLinesOfMetricsAreDropped) {
  ASSERT_EQ(train("a", {"train.steps=3"}).code, 0);
  std::ofstream(folder_ / "a/run/metrics.jsonl", std::ios::app)
      << "{\"step\":\"a\",\"loss\":1}\n{\"step\":1.5}\n{\"step\":18446744073709551615}\n[1]\n{\"st";
  const Result result = train("a", {"--resume"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(logged_steps("a"), counted(6));
}

TEST_F(Train, ANameThatIsNotUtf8IsRefused) {
  for (const char* option : {"--init", "--teacher"})
    EXPECT_TRUE(failed(train("a", {option, "\xff.safetensors"}), 2, "\"\\xff.safetensors\" is not UTF-8"));
}

TEST_F(Train, ARunIsNotOverwrittenWithoutResume) {
  ASSERT_EQ(train("a", {"train.steps=1"}).code, 0);
  const std::string kept = checkpoint("a");
  EXPECT_TRUE(failed(train("a"), 2, "--resume"));
  EXPECT_EQ(checkpoint("a"), kept);
}

TEST_F(Train, AResumedRunSaysWhatIsOtherThanBefore) {
  ASSERT_EQ(train("a", {"train.steps=3", "train.lr=2e-4"}).code, 0);
  const Result result = train("a", {"--resume", "train.batch=8", "train.lr=2e-4"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("otherwise than before: train.batch was 4, is now 8"), std::string::npos)
      << result.out;
  EXPECT_EQ(result.out.find("train.steps was"), std::string::npos) << result.out;
  const Result falling = train("a", {"--resume", "train.steps=7", "train.lr=7e-4", "train.schedule=cosine"});
  for (const char* change : {"train.lr was 0.0002, is now 0.0007\n", "train.steps was 6, is now 7\n"})
    EXPECT_NE(falling.out.find(change), std::string::npos) << falling.out;
  EXPECT_TRUE(failed(train("a", {"--resume", "train.optimizer=muon"}), 2, "means nothing to another"));
}

// Also where only one of the two says what it is anyway.
TEST_F(Train, TheSameOptimizerIsGoneOnWithHoweverItIsSaid) {
  const std::string adamw = "train.optimizer=adamw";
  ASSERT_EQ(train("a", {"train.steps=1"}).code, 0);
  EXPECT_EQ(train("a", {"--resume", "train.steps=2", adamw}).code, 0);
  EXPECT_EQ(train("a", {"--resume", "train.steps=3"}).code, 0);
  EXPECT_TRUE(failed(train("a", {"--resume", "train.optimizer=came"}), 2,
                     "train.optimizer was \"adamw\", is now \"came\"; what one optimiser keeps"));
}

TEST_F(Train, AResumedRunSaysThatPicturesWereAddedOrAreGone) {
  ASSERT_EQ(train("a", {"train.steps=2"}).code, 0);
  const Result same = train("a", {"--resume", "train.steps=3"});
  EXPECT_EQ(same.out.find("otherwise than before: there were"), std::string::npos) << same.out;
  std::filesystem::remove(*std::filesystem::directory_iterator(folder_ / "shapes/red-star"));
  const Result fewer = train("a", {"--resume", "train.steps=4"});
  EXPECT_EQ(fewer.code, 0) << fewer.err;
  EXPECT_NE(fewer.out.find("otherwise than before: there were 128 pictures, now there are 127\n"),
            std::string::npos)
      << fewer.out;
}

TEST_F(Train, AResumedRunThatIsDoneWritesTheModelThatAKillLeftOut) {
  ASSERT_EQ(train("a").code, 0);
  const std::string model = contents(folder_ / "a/run/model.safetensors");
  std::filesystem::remove(folder_ / "a/run/model.safetensors");
  EXPECT_EQ(train("a", {"--resume"}).code, 0);
  EXPECT_EQ(contents(folder_ / "a/run/model.safetensors"), model);
}

TEST_F(Train, ASpoiltModelIsNotSaved) {
  const Result result = train("a", {"output.save_every=1", "train.lr=9.9", "train.weight_decay=1e38"});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("is no longer finite after step 1; a lower train.lr"), std::string::npos)
      << result.err;
  EXPECT_TRUE(checkpoint_is_missing("a"));
  for (const char* name : {"model.safetensors", "checkpoint.safetensors.partial"})
    EXPECT_FALSE(std::filesystem::exists(folder_ / "a/run" / name)) << name;
}

TEST_F(Train, ClassesInAnotherOrderAreRefused) {
  ASSERT_EQ(train("a", {"train.steps=1"}).code, 0);
  const auto file = SafetensorsFile::open(folder_ / "a/run/model.safetensors");
  const auto write_with = [&](const char* name, const nlohmann::json& classes) {
    NamedTensors tensors;
    for (const std::string& each : file.names()) tensors.emplace_back(each, file.tensor(each));
    auto metadata = file.metadata();
    metadata["linnet.classes"] = classes.dump();
    write_safetensors(folder_ / name, tensors, metadata);
  };
  auto classes = nlohmann::json::parse(file.metadata().at("linnet.classes"));
  std::swap(classes[0], classes[1]);
  write_with("swapped", classes);
  for (const char* option : {"--init", "--teacher"})
    EXPECT_TRUE(failed(train("b", {option, "../swapped"}), 1, "in another order: class 0 is "));
  classes[0] = "another word for it";
  write_with("renamed", classes);
  EXPECT_EQ(train("b", {"--init", "../renamed"}).code, 0);
}

TEST_F(Train, AFolderOfSamplesThatNoRunWroteIsLeftAlone) {
  std::filesystem::create_directories(place("a") / "run/samples");
  EXPECT_TRUE(failed(train("a", {"output.sample_every=1"}), 2, "samples was not written by a run"));
}

TEST_F(Train, ThereMustBeARunToResume) {
  EXPECT_TRUE(failed(train("a", {"--resume"}), 2, "no checkpoint"));
  EXPECT_TRUE(listing(folder_ / "a").empty());
}

TEST_F(Train, ACheckpointOfAnotherModelIsRefused) {
  ASSERT_EQ(train("a", {"train.steps=1"}).code, 0);
  EXPECT_TRUE(failed(train("a", {"model.depth=2", "--resume"}), 1, "another model"));
}

TEST_F(Train, ADamagedCheckpointIsRefused) {
  ASSERT_EQ(train("a", {"train.steps=1"}).code, 0);
  std::filesystem::resize_file(folder_ / "a/run/checkpoint.safetensors", 5000);
  EXPECT_TRUE(failed(train("a", {"--resume"}), 1, "checkpoint.safetensors"));
}

}  // namespace
}  // namespace linnet::test
