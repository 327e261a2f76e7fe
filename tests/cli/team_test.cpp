// linnet train of several processes, as mpirun starts them: what one alone does, and how they end.
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/gpu.h"
#include "cli/small_model.h"
#include "support/sanitizers.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

#ifdef LINNET_MPIEXEC
constexpr const char* launcher = LINNET_MPIEXEC;
#else
constexpr const char* launcher = "";
#endif

class Team : public testing::Test {
 protected:
  void SetUp() override {
    if (*launcher == '\0') GTEST_SKIP() << "not run: there is no MPI here";
    if (with_thread_sanitizer) GTEST_SKIP() << "not run: MPI's own threads are unknown to the sanitizer";
    ASSERT_EQ(run({"data", "shapes", "shapes", "--count", "128", "--size", "16"}, {folder_.path()}).code, 0);
    ASSERT_EQ(run({"data", "scenes", "scenes", "--count", "16", "--size", "16"}, {folder_.path()}).code, 0);
    write_small_model(folder_ / "small", small_config(), false);
    std::ofstream(folder_ / "classes.toml") << "[data]\npath = '../shapes'\n" << usual << "init = '../small'\n";
    std::ofstream(folder_ / "texts.toml")
        << "[model]\nkind = 'pixart'\nsample_size = 16\npatch_size = 4\nin_channels = 3\nhidden_size = 16\n"
           "depth = 1\nnum_heads = 2\nnum_cross_heads = 2\ncaption_channels = 24\ncaption_tokens = 20\n"
           "null_caption = false\n[data]\npath = '../scenes'\n[text]\ndepth = 1\nheads = 2\nhidden = 16\n"
           "tokenizer = '"
        << data_file("tokenizer/spiece.model") << "'\n"
        << usual;
  }

  // In a folder of its own.
  static Surroundings surroundings(const fs::path& folder, int processes) {
    fs::create_directories(folder);
    Surroundings result{.folder = folder, .environment = {{"OMP_NUM_THREADS", "1"}}};
    if (processes == 1) return result;
    result.launcher = {launcher, "-np", std::to_string(processes)};
    auto& e = result.environment;
    e["OMPI_ALLOW_RUN_AS_ROOT"] = e["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1";
    e["OMPI_MCA_rmaps_base_oversubscribe"] = "1";
    e["OMPI_MCA_hwloc_base_binding_policy"] = "none";
    e["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe";  // the same two for Open MPI 5
    e["PRTE_MCA_hwloc_default_binding_policy"] = "none";
    e["OMPI_MCA_btl_vader_single_copy_mechanism"] = "none";            // which containers may forbid
    if (with_address_sanitizer) e["ASAN_OPTIONS"] = "detect_leaks=0";  // of MPI
    return result;
  }
  // The first process in a folder of its own, with arguments of its own. (It is a shell that tells them apart:
  // Open MPI 5.0 ends by a signal when it is given two programs.)
  static Surroundings beside(const fs::path& folder, Surroundings both, const Arguments& arguments) {
    const std::string first =
        fmt::format(R"(cd '{}' && exec "$0" train {})", folder.string(), fmt::join(arguments, " "));
    const std::string each = fmt::format(R"([ "$OMPI_COMM_WORLD_RANK" = 0 ] && {}; exec "$0" "$@")", first);
    both.launcher = with(both.launcher, {"sh", "-c", each});
    return both;
  }
  Result train(const std::string& name, int processes, const Arguments& arguments) const {
    return run(with({"train"}, arguments), surroundings(folder_ / name, processes));
  }
  std::vector<nlohmann::json> logged(const std::string& name) const {
    std::vector<nlohmann::json> all;
    for (const std::string& line : lines(contents(folder_ / name / "run/metrics.jsonl")))
      all.push_back(nlohmann::json::parse(line));
    return all;
  }
  // Losses, gradients' norms and the weights at the end.
  void expect_alike(const std::string& one, const std::string& other) const {
    const auto expected = logged(one), actual = logged(other);
    ASSERT_GT(expected.size(), 0u);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      for (const char* term : {"step", "loss", "mse", "bound", "gradient_norm", "lr"}) {
        const auto wanted = expected[i].at(term).get<double>();
        EXPECT_NEAR(actual[i].at(term).get<double>(), wanted, 1e-4 * wanted) << term << ", step " << i + 1;
      }
    const auto here = SafetensorsFile::open(folder_ / one / "run/checkpoint.safetensors"),
               there = SafetensorsFile::open(folder_ / other / "run/checkpoint.safetensors");
    for (const auto& name : here.names())
      if (name.starts_with("model.") || name.starts_with("ema.")) {
        EXPECT_LT(relative_error(there.tensor(name), here.tensor(name)), 1e-3) << name;
      }
  }
  void expect_as_one_alone(int processes, const Arguments& arguments) const {
    ASSERT_EQ(train("alone", 1, arguments).code, 0);
    const Result result = train("team", processes, arguments);
    ASSERT_EQ(result.code, 0) << result.err;
    const std::string said = fmt::format("{} processes, ", processes);
    EXPECT_NE(result.out.find(said), std::string::npos) << result.out;
    EXPECT_EQ(result.out.find(said), result.out.rfind(said)) << "one speaks for all";
    EXPECT_EQ(listing(folder_ / "team/run"), listing(folder_ / "alone/run"));
    expect_alike("alone", "team");
  }
  // The launcher adds lines of its own.
  static std::string said_by_linnet(const Result& result) {
    std::string all;
    for (const std::string& line : lines(result.err))
      if (line.starts_with("linnet: ")) all += line + "\n";
    return all;
  }
  void expect_refused(const std::string& sentence, const Arguments& arguments) const {
    const Result result = train("refused", 2, arguments);
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_EQ(said_by_linnet(result), "linnet: " + sentence + "\n");
    EXPECT_FALSE(fs::exists(folder_ / "refused/run"));
  }

  static constexpr const char* usual =
      "[output]\ndir = 'run'\nlog_every = 1\n[train]\nsteps = 4\nbatch = 12\nlr = 1e-3\nprecision = 'f32'\n";
  TemporaryFolder folder_;
};

TEST_F(Team, LearnsAsOneAlone) {
  expect_as_one_alone(2, {"../classes.toml", "output.sample_every=4", "output.sample_steps=2"});
}

TEST_F(Team, LearnsAsOneAloneInParts) {
  expect_as_one_alone(3, {"../classes.toml", "train.accumulate=2", "train.clip=0.05", "train.optimizer=muon"});
}

TEST_F(Team, LearnsFromATeacherAsOneAlone) {
  expect_as_one_alone(2,
                      {"../classes.toml", "--teacher", "../small", "distil.precision=f32", "data.flip=true"});
}

TEST_F(Team, LearnsTextsAsOneAlone) { expect_as_one_alone(2, {"../texts.toml"}); }

TEST_F(Team, GoesOnInAnotherSize) {
  ASSERT_EQ(train("alone", 1, {"../classes.toml"}).code, 0);
  ASSERT_EQ(train("team", 2, {"../classes.toml", "train.steps=2"}).code, 0);
  const Result result = train("team", 3, {"../classes.toml", "--resume"});
  ASSERT_EQ(result.code, 0) << result.err;
  expect_alike("alone", "team");
}

TEST_F(Team, RefusesInOneSentenceWhatAllSee) {
  expect_refused("configuration: a batch of 12 cannot be shared by 2 processes that gather it in 4 parts",
                 {"../classes.toml", "train.accumulate=4"});
  expect_refused("none.toml: this configuration cannot be read: No such file or directory", {"none.toml"});
  ASSERT_EQ(train("team", 2, {"../classes.toml"}).code, 0);
  const Result again = train("team", 2, {"../classes.toml"});
  EXPECT_EQ(again.code, 2);
  EXPECT_EQ(said_by_linnet(again),
            "linnet: run holds a run already; go on with --resume, or choose another output.dir\n");
}

// A picture that the second process alone reads, and not in the first step.
TEST_F(Team, SavesWhatWasLearnedWhenOneFails) {
  fs::create_directories(folder_ / "few/a");
  for (int i = 0; i < 8; ++i)
    fs::copy(
        folder_ / "shapes/red-star" / fs::directory_iterator(folder_ / "shapes/red-star")->path().filename(),
        folder_ / fmt::format("few/a/{}.png", i));
  std::ofstream(folder_ / "few/a/3.png") << "no picture";
  std::ofstream(folder_ / "few.toml")
      << "[model]\nmixer = 'lit'\ninput_size = 16\npatch_size = 4\nin_channels = 3\n"
         "hidden_size = 24\ndepth = 1\nnum_heads = 2\nnum_classes = 1\n"
         "[data]\npath = '../few'\n"
      << usual;
  bool found = false;
  for (int seed = 0; seed < 20 && !found; ++seed) {
    const std::string name = fmt::format("seed-{}", seed);
    const Result result = train(name, 2, {"../few.toml", "train.batch=2", fmt::format("train.seed={}", seed)});
    EXPECT_EQ(result.code, 1);
    const std::string said = said_by_linnet(result);
    EXPECT_NE(said.find("3.png"), std::string::npos) << result.err;
    EXPECT_EQ(lines(said).size(), 1u) << said;
    found = said.starts_with("linnet: process 2 of 2: ") &&
            fs::exists(folder_ / name / "run/checkpoint.safetensors");
    EXPECT_EQ(result.err.find("an error ends the run; step ") != std::string::npos,
              fs::exists(folder_ / name / "run/checkpoint.safetensors"))
        << result.err;
  }
  EXPECT_TRUE(found) << "in none of the orders the second process met the broken picture late";
}

TEST_F(Team, StopsAtASignalAndGoesOn) {
  ASSERT_EQ(train("alone", 1, {"../classes.toml"}).code, 0);
  Surroundings where = surroundings(folder_ / "team", 2);
  Process process({"train", "../classes.toml", "train.steps=1000000"}, where);
  process.wait_for("step 2 ");
  process.send(SIGUSR1);  // which mpirun passes on without killing soon after
  const Result result = process.wait();
  EXPECT_EQ(result.code, 128 + SIGUSR1) << result.err;
  EXPECT_NE(result.err.find("go on with --resume"), std::string::npos) << result.err;
  EXPECT_EQ(said_by_linnet(result), "linnet: interrupted\n");
  const auto steps = static_cast<int64_t>(logged("team").size());
  const Result more =
      train("team", 2, {"../classes.toml", fmt::format("train.steps={}", steps + 2), "--resume"});
  ASSERT_EQ(more.code, 0) << more.err;
  EXPECT_EQ(static_cast<int64_t>(logged("team").size()), steps + 2);
}

// One bit of one weight.
TEST_F(Team, RefusesToGoOnWithOtherWeightsInEach) {
  const fs::path here = folder_ / "team", there = folder_ / "other/team";
  const Surroundings where = beside(there, surroundings(here, 2), {"../classes.toml", "train.init=../model"});
  fs::create_directories(there);
  for (const char* name : {"shapes", "classes.toml"})
    fs::copy(folder_ / name, there / ".." / name, fs::copy_options::recursive);
  fs::copy(folder_ / "small", folder_ / "model");
  std::string bytes = contents(folder_ / "small");
  bytes[bytes.size() - 4] = static_cast<char>(bytes[bytes.size() - 4] ^ 1);
  std::ofstream(there / "../model", std::ios::binary) << bytes;
  const Result result = run({"train", "../classes.toml", "train.init=../model"}, where);
  EXPECT_EQ(result.code, 1) << result.err;
  EXPECT_EQ(
      said_by_linnet(result),
      "linnet: after step 0 the processes' weights are no longer the same; do all run the same program on "
      "machines of one kind?\n");
}

// One more of pictures that have no classes.
TEST_F(Team, RefusesOtherPicturesInEach) {
  const fs::path here = folder_ / "team", there = folder_ / "other/team";
  const Surroundings where = beside(there, surroundings(here, 2), {"../texts.toml"});
  fs::create_directories(there);
  fs::copy(folder_ / "texts.toml", there / "../texts.toml");
  ASSERT_EQ(run({"data", "scenes", "scenes", "--count", "17", "--size", "16"}, {there / ".."}).code, 0);
  const Result result = run({"train", "../texts.toml"}, where);
  EXPECT_EQ(result.code, 1) << result.err;
  EXPECT_EQ(said_by_linnet(result),
            "linnet: the processes see other pictures or classes each: they must see the same files by the "
            "same names\n");
}

TEST_F(Team, RefusesToBeToldOtherwiseInEach) {
  const fs::path here = folder_ / "team";
  const Surroundings where = beside(here, surroundings(here, 2), {"../classes.toml", "train.steps=3"});
  const Result result = run({"train", "../classes.toml"}, where);
  EXPECT_EQ(result.code, 2) << result.err;
  EXPECT_EQ(said_by_linnet(result),
            "linnet: the processes' configurations differ: give all of them the same\n");
  EXPECT_FALSE(fs::exists(here / "run"));
}

TEST_F(Team, SaysThatItsLibraryIsMissing) {
  Surroundings where = surroundings(folder_ / "team", 2);
  where.environment["LINNET_MPI_LIBRARY"] = "/nowhere";
  const Result result = run({"train", "../classes.toml"}, where);
  EXPECT_EQ(result.code, 1);
  // Of either: Open MPI 5 ends the other as soon as one has ended.
  EXPECT_NE(result.err.find("several processes cannot work together: "), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(folder_ / "team/run"));
}

class GpuTeam : public Team {
 protected:
  void SetUp() override {
    if (*emulated_gpu == '\0') GTEST_SKIP() << "not run: the emulated GPU is not built here";
    Team::SetUp();
  }
  // Of two cards.
  void expect_as_one_alone(const Arguments& arguments, const std::map<std::string, std::string>& more,
                           const std::string& said) const {
    for (const int processes : {1, 2}) {
      Surroundings where = surroundings(folder_ / (processes == 1 ? "alone" : "team"), processes);
      where.environment.insert({"LINNET_CUDA_LIBRARY", emulated_gpu});
      where.environment.insert({"LINNET_EMULATED_CARDS", "2"});
      where.environment.insert(more.begin(), more.end());
      const Result result = run(with({"train", "--device", "cuda"}, arguments), where);
      ASSERT_EQ(result.code, 0) << result.err;
      EXPECT_EQ(result.out.find(said) != std::string::npos, processes == 2) << result.out;
    }
    expect_alike("alone", "team");
  }
};

TEST_F(GpuTeam, CardsAddAmongThemselves) {
  expect_as_one_alone({"../classes.toml", "train.accumulate=2"}, {}, "2 processes, 6 pictures a step each\n");
}

TEST_F(GpuTeam, CardsAddThroughTheProcessorsMemory) {
  expect_as_one_alone({"../texts.toml"}, {{"LINNET_EMULATED_WITHOUT_NCCL", "1"}},
                      "without NCCL their cards add through the processors' memory");
}

TEST_F(GpuTeam, ACardThatIsMissingIsSaidOnce) {
  Surroundings where = surroundings(folder_ / "team", 2);
  where.environment["LINNET_CUDA_LIBRARY"] = emulated_gpu;
  const Result result = run({"train", "--device", "cuda", "../classes.toml"}, where);
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(said_by_linnet(result),
            "linnet: process 2 of 2: cuda:1 cannot be used: the only GPU of this machine is cuda:0\n");
  where.environment["CUDA_VISIBLE_DEVICES"] = "0";  // as a launcher gives each process a card of its own
  EXPECT_EQ(run({"train", "--device", "cuda", "../classes.toml"}, where).code, 0);
}

}  // namespace
}  // namespace linnet::test
