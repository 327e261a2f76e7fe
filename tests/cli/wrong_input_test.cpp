// What is wrong is answered with one sentence and the right exit code, and leaves nothing behind.
#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>

#include "cli/command.h"
#include "cli/small_model.h"
#include "support/sanitizers.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class WrongInput : public testing::Test {
 protected:
  void SetUp() override { before_ = listing(folder_.path()); }
  void TearDown() override { EXPECT_EQ(listing(folder_.path()), before_) << "something was left behind"; }

  Result linnet(const Arguments& arguments) const { return run(arguments, {folder_.path()}); }
  Result generate(const Arguments& more) const {
    Arguments all = {"generate", "-m", "small.safetensors", "--steps", "2", "-o", "p.png"};
    all.insert(all.end(), more.begin(), more.end());
    return linnet(all);
  }

  // As somebody who may not write into the folder "locked".
  Result beside_a_locked_folder(const Arguments& arguments) {
    fs::create_directories(folder_ / "locked");
    fs::permissions(folder_ / "locked", fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read |
                                            fs::perms::others_exec);
    fs::permissions(folder_.path(), fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
    fs::permissions(model_, fs::perms::others_read, fs::perm_options::add);
    before_ = listing(folder_.path());
    const auto as_nobody = [] {
      constexpr uid_t nobody = 65534;
      if (::geteuid() != 0) return;
      if (::setgroups(0, nullptr) != 0 || ::setgid(nobody) != 0 || ::setuid(nobody) != 0) ::_exit(127);
    };
    return run(arguments, {folder_.path(), as_nobody});
  }

  TemporaryFolder folder_;
  const std::string model_ = write_small_model(folder_ / "small.safetensors");
  std::vector<std::string> before_;
};

TEST_F(WrongInput, NoVerbListsTheVerbs) { EXPECT_TRUE(failed(linnet({}), 2, "generate, train")); }

TEST_F(WrongInput, AMistypedVerbIsCorrected) {
  EXPECT_TRUE(failed(linnet({"genrate"}), 2, "did you mean \"generate\"?"));
  EXPECT_TRUE(failed(linnet({"data", "shape"}), 2, "did you mean \"shapes\"?"));
  EXPECT_TRUE(failed(linnet({"frobnicate"}), 2, "frobnicate"));
}

TEST_F(WrongInput, AMistypedOptionIsCorrected) {
  EXPECT_TRUE(failed(generate({"--sede", "1"}), 2, "did you mean \"--seed\"?"));
  EXPECT_TRUE(failed(generate({"--stpes=4"}), 2, "did you mean \"--steps\"?"));
  EXPECT_TRUE(failed(linnet({"info"}), 2));
}

TEST_F(WrongInput, AMistypedClassIsCorrected) {
  EXPECT_TRUE(failed(generate({"--class", "red-strar"}), 2, "did you mean \"red-star\"?"));
  EXPECT_TRUE(failed(generate({"--class", "zebra"}), 2, "red-circle"));
  EXPECT_TRUE(failed(generate({"--class", "64"}), 2, "64"));
  EXPECT_TRUE(failed(generate({"--class", "-1"}), 2));
  EXPECT_TRUE(failed(generate({"--class", ""}), 2));
  EXPECT_TRUE(failed(generate({"--class", "red-star,,1"}), 2));
}

TEST_F(WrongInput, WhatIsSaidOfTextsIsRefusedByAModelOfClasses) {
  const std::pair<std::string, std::string> options[] = {{"--negative", "blurry"},
                                                         {"--size", "64x64"},
                                                         {"--text-encoder", "t5"},
                                                         {"--tokenizer", "t5"},
                                                         {"--cache", "c"},
                                                         {"--cleaning", "strip"},
                                                         {"--unconditional", "null"},
                                                         {"--time-grid", "fractional"}};
  for (const auto& [option, value] : options)
    EXPECT_TRUE(failed(generate({option, value}), 2, option + " is for models that paint texts"));
}

TEST_F(WrongInput, NoClassCanBeNamedBesideEveryClass) {
  for (const Arguments& classes :
       {Arguments{"-c", "balanced", "-c", "red-star"}, Arguments{"-c", "red-star", "-c", "balanced"}})
    EXPECT_TRUE(failed(generate(classes), 2, "--class balanced is every class in turn"));
}

TEST_F(WrongInput, AFormatOtherThanTheNameSaysIsRefused) {
  EXPECT_TRUE(failed(generate({"--format", "jpg"}), 2, "--format jpg is not what p.png would be"));
  EXPECT_TRUE(failed(generate({"--format", "gif"}), 2, "--format is png, jpg or webp"));
}

TEST_F(WrongInput, ImpossibleNumbersAreRefused) {
  const std::pair<const char*, const char*> options[] = {{"--steps", "0"},
                                                         {"--steps", "1001"},
                                                         {"--steps", "-1"},
                                                         {"--steps", "99999999999"},
                                                         {"-n", "0"},
                                                         {"-n", "-1"},
                                                         {"-n", "1000001"},
                                                         {"-n", "five"},
                                                         {"--cfg", "nan"},
                                                         {"--cfg", "inf"},
                                                         {"--cfg", "1e300"},
                                                         {"--cfg", "x"},
                                                         {"--seed", "-1"},
                                                         {"--seed", "1.5"},
                                                         {"--seed", "18446744073709551616"},
                                                         {"--batch", "-1"},
                                                         {"--threads", "-1"},
                                                         {"--threads", "99999"},
                                                         {"--columns", "0"},
                                                         {"--scale", "-1"},
                                                         {"--dtype", "f64"},
                                                         {"--sampler", "euler"},
                                                         {"--clip", "maybe"},
                                                         {"--cfg-channels", "4"},
                                                         {"--cfg-interval", "300"},
                                                         {"--cfg-interval", "3:x"},
                                                         {"--cfg-interval", "9:1"},
                                                         {"--cfg-interval", "-1:999"},
                                                         {"--cfg-interval", "1000:2000"},
                                                         {"--device", "tpu"},
                                                         {"--device", "cuda:x"}};
  for (const auto& [option, value] : options) {
    Arguments all = {"generate", "-m", "small.safetensors", "-o", "p.png", option, value};
    EXPECT_TRUE(failed(linnet(all), 2)) << option << " " << value;
  }
  EXPECT_TRUE(failed(
      linnet({"generate", "-m", "small.safetensors", "-o", "p.png", "--sampler", "dpm++", "--steps", "1000"}),
      2, "999"));
}

TEST_F(WrongInput, WholeNumbersAreDecimal) {
  for (const char* number : {"0x10", "0b1", "1.5", "", "1'0", "+", "- 1"}) {
    EXPECT_TRUE(failed(generate({"-n", number}), 2, fmt::format("it is a whole number, not \"{}\"", number)));
    EXPECT_TRUE(failed(linnet({"data", "shapes", "d", "--count", number}), 2, "a whole number"));
  }
  EXPECT_TRUE(failed(generate({"-n", "-010"}), 2, "not -10"));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors", "-o", "p.png", "--steps", "02000"}), 2,
                     "1 to 1000 steps, not 2000"));
  EXPECT_TRUE(failed(linnet({"bench", "heads", "--heads", "010,0x10"}), 2, "not \"0x10\""));
}

TEST_F(WrongInput, WithoutAGpuItIsSaidWhatIsMissing) {
  const auto without = [] { ::setenv("LINNET_CUDA_LIBRARY", "/none/liblinnet_cuda.so", 1); };
  for (const Arguments& verb : {Arguments{"generate", "-m", "small.safetensors", "-o", "p.png"},
                                Arguments{"forward", "small.safetensors", "in.safetensors", "-o", "out"},
                                Arguments{"eval", "train-classifier", ".", "-o", "out"}}) {
    Arguments all = verb;
    all.insert(all.end(), {"--device", "cuda"});
    EXPECT_TRUE(failed(run(all, {folder_.path(), without}), 1, "there is no /none/liblinnet_cuda.so"))
        << verb[0];
  }
}

TEST_F(WrongInput, ASheetThatIsTooLargeIsRefusedBeforePainting) {
  EXPECT_TRUE(failed(generate({"--grid", "-n", "1000000"}), 1, "too large"));
  EXPECT_TRUE(failed(generate({"--grid", "--scale", "9223372036854775807"}), 1, "too large"));
}

TEST_F(WrongInput, ImpossibleOutputsAreRefused) {
  fs::create_directories(folder_ / "folder.png");
  before_ = listing(folder_.path());
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors"}), 2, "-o out.png"));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors", "-o", "p.gif"}), 2, ".png, .jpg or .webp"));
  EXPECT_TRUE(
      failed(linnet({"generate", "-m", "small.safetensors", "-o", "p.png", "--quality", "9"}), 2, "PNG"));
  EXPECT_TRUE(
      failed(linnet({"generate", "-m", "small.safetensors", "-o", "p.jpg", "--quality", "0"}), 2, "100"));
  EXPECT_TRUE(
      failed(linnet({"generate", "-m", "small.safetensors", "-o", "d/", "--format", "gif"}), 2, "png, jpg"));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors", "-o", "folder.png"}), 1, "folder"));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors", "-o", "none/p.png"}), 1, "no folder none"));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors", "-o", "small.safetensors/p.png"}), 1));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "small.safetensors", "--latents-out", "none/l"}), 1, "none"));
}

TEST_F(WrongInput, ACurrentFolderThatIsGoneIsOneSentence) {
  fs::create_directory(folder_ / "gone");
  const auto removed = [this] { fs::remove(folder_ / "gone"); };
  for (const Arguments& arguments :
       {Arguments{"generate", "-o", "x.png"},
        {"generate", "-o", "x/"},
        {"data", "shapes", "d", "--count", "2"},
        {"eval", "a", "b", "--features", "c", "--json", "j", "--save-statistics", "s"}}) {
    fs::create_directories(folder_ / "gone");
    const Result result = run(arguments, {.folder = folder_ / "gone", .in_child = removed});
    EXPECT_TRUE(failed(result, 1, "the current folder is no more to be found")) << arguments[0];
  }
}

TEST_F(WrongInput, OutputsInOnePlaceAreRefused) {
  fs::create_symlink("p.png", folder_ / "to-be.png");
  fs::create_directories(folder_ / "d");
  fs::create_directory_symlink("d", folder_ / "e");
  before_ = listing(folder_.path());
  for (const Arguments& outputs :
       {Arguments{"--latents-out", "p.png"}, Arguments{"--latents-out", "./p.png"},
        Arguments{"--latents-out", (folder_ / "p.png").string()}, Arguments{"--latents-out", "to-be.png"},
        Arguments{"--latents-out", "p.preview.png", "--preview-every", "1"}})
    EXPECT_TRUE(failed(generate(outputs), 2, "would write the same file")) << outputs[1];
  const auto also = [&](const Arguments& more) {
    Arguments all = {"generate", "-m", "small.safetensors", "--steps", "2"};
    all.insert(all.end(), more.begin(), more.end());
    return linnet(all);
  };
  EXPECT_TRUE(failed(also({"-o", "d/p.png", "--latents-out", "e/p.png"}), 2, "would write the same file"));
  EXPECT_TRUE(failed(also({"-n", "3", "-o", "p.png", "--latents-out", "./p-0002.png"}), 2, "of picture 2"));
  EXPECT_TRUE(failed(also({"-n", "3", "-o", "d/", "--npz", "e/000001.png"}), 2, "of picture 2"));
  EXPECT_TRUE(failed(also({"-o", "d/", "--npz", "d.preview.png", "--preview-every", "1"}), 2, "the same file"));
}

TEST_F(WrongInput, APathThatLeadsNowhereIsNoFile) {
  const TemporaryFolder other;
  const std::string loop = other / "loop";
  fs::create_symlink("loop", loop);
  const std::pair<std::string, const char*> places[] = {{loop, "Too many levels of symbolic links"},
                                                        {std::string(5000, 'x'), "File name too long"}};
  for (const auto& [path, why] : places) {
    EXPECT_TRUE(failed(linnet({"info", path}), 1, why));
    EXPECT_TRUE(failed(linnet({"generate", "-m", path, "-o", "x.png"}), 1, why));
    EXPECT_TRUE(failed(linnet({"forward", path, path, "-o", "out"}), 1, why));
  }
}

TEST_F(WrongInput, AFolderIsNoFile) {
  fs::create_directories(folder_ / "d");
  before_ = listing(folder_.path());
  EXPECT_TRUE(failed(linnet({"info", "d"}), 1, "folder"));
  EXPECT_TRUE(failed(linnet({"generate", "-m", "d", "-o", "p.png"}), 1, "folder"));
  EXPECT_TRUE(failed(linnet({"forward", "small.safetensors", "d", "-o", "out"}), 1, "folder"));
  EXPECT_TRUE(failed(linnet({"train", "d"}), 2, "cannot be read"));
  EXPECT_TRUE(failed(linnet({"info", "none"}), 1, "none"));
  EXPECT_TRUE(failed(linnet({"eval", "shapes", "small.safetensors"}), 1));
  EXPECT_TRUE(failed(linnet({"data", "shapes", "small.safetensors"}), 2));
}

TEST_F(WrongInput, TruncatedFilesAreRefused) {
  const std::string whole = contents(folder_ / "small.safetensors");
  std::ofstream(folder_ / "cut") << "";
  before_ = listing(folder_.path());
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    std::ofstream(folder_ / "cut", std::ios::binary) << whole.substr(0, size);
    EXPECT_TRUE(failed(linnet({"info", "cut"}), 1, "cut")) << size;
    EXPECT_TRUE(failed(linnet({"generate", "-m", "cut", "-o", "p.png"}), 1, "cut")) << size;
  }
  std::string picture = contents(data_file("images/source.png"));
  std::ofstream(folder_ / "cut", std::ios::binary) << picture.substr(0, picture.size() / 2);
  EXPECT_TRUE(failed(linnet({"info", "cut"}), 1, "cut"));
}

TEST_F(WrongInput, HostileFilesAreRefused) {
  for (const auto& entry : fs::directory_iterator(data_file("safetensors/broken"))) {
    const std::string file = entry.path().string();
    EXPECT_TRUE(failed(linnet({"info", file}), 1)) << file;
    EXPECT_TRUE(failed(linnet({"generate", "-m", file, "-o", "p.png"}), 1)) << file;
  }
}

TEST_F(WrongInput, ModelsThatContradictThemselvesAreRefused) {
  const std::string whole = contents(folder_ / "small.safetensors");
  std::ofstream(folder_ / "odd") << "";
  before_ = listing(folder_.path());
  // Each is as long as what it replaces, so that the header stays valid.
  const std::pair<std::string, std::string> changes[] = {
      {"\\\"depth\\\":2", "\\\"depth\\\":3"},
      {"\\\"depth\\\":2", "\\\"depth\\\":1"},
      {"\\\"depth\\\":2", "\\\"depth\\\":0"},
      {"\\\"input_size\\\":16", "\\\"input_size\\\":-4"},
      {"\\\"hidden_size\\\":24", "\\\"hidden_size\\\":28"},
      {"\\\"num_heads\\\":2", "\\\"num_heads\\\":5"},
      {"\\\"num_classes\\\":64", "\\\"num_classes\\\":65"},
      {"\\\"model\\\":\\\"dit\\\"", "\\\"model\\\":\\\"vit\\\""},
      {"\\\"mixer\\\":\\\"lit\\\"", "\\\"mixer\\\":\\\"let\\\""},
      {"red-circle", "red\\ncircl"}};
  for (const auto& [from, to] : changes) {
    std::string text = whole;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    ASSERT_EQ(to.size(), from.size());
    text.replace(at, from.size(), to);
    std::ofstream(folder_ / "odd", std::ios::binary) << text;
    EXPECT_TRUE(failed(linnet({"generate", "-m", "odd", "--steps", "1", "-o", "p.png"}), 1, "odd")) << to;
  }
}

TEST_F(WrongInput, WrongConfigurationsAreRefused) {
  std::ofstream(folder_ / "c.toml") << "[model]\npreset = 'LiT-S/2'\n[data]\npath = 'none'\n";
  std::ofstream(folder_ / "broken.toml") << "[model\n";
  before_ = listing(folder_.path());
  EXPECT_TRUE(failed(linnet({"train", "none.toml"}), 2, "none.toml"));
  EXPECT_TRUE(failed(linnet({"train", "broken.toml"}), 2, "line 1"));
  EXPECT_TRUE(failed(linnet({"train", "c.toml", "train.stepz=1"}), 2, "did you mean \"steps\"?"));
  EXPECT_TRUE(failed(linnet({"train", "c.toml", "steps"}), 2, "table.key=value"));
  EXPECT_TRUE(failed(linnet({"train", "c.toml", "model.input_size=31"}), 2, "patch_size"));
  EXPECT_TRUE(failed(linnet({"train", "c.toml", "model.preset='LiT-XXL/2'"}), 2, "LiT-XL/2"));
  EXPECT_TRUE(failed(linnet({"train", "c.toml"}), 1, "none"));
}

TEST_F(WrongInput, ImpossibleDataSetsAreRefused) {
  EXPECT_TRUE(failed(linnet({"data", "shapes", "d", "--size", "5"}), 2, "16 to 2048"));
  for (const char* spread : {"1.5", "-0.1", "nan"})
    EXPECT_TRUE(failed(linnet({"data", "scenes", "d", "--spread", spread}), 2, "0..1")) << spread;
  EXPECT_TRUE(failed(linnet({"data", "shapes", "d", "--count", "0"}), 2));
  EXPECT_TRUE(failed(linnet({"data", "shapes", "none/\nx", "--count", "-3"}), 2));
}

TEST_F(WrongInput, AFullDiskIsOneSentence) {
  if (with_thread_sanitizer) GTEST_SKIP() << "the thread sanitizer writes a larger file itself";
  const auto limited = [&](const Arguments& arguments) {
    return run(arguments, {folder_.path(), [] {
                             const rlimit limit{1024, 1024};  // what Clang's OpenMP writes, and no more
                             ::setrlimit(RLIMIT_FSIZE, &limit);
                           }});
  };
  const auto generate = [&](Arguments output) {
    Arguments arguments{"generate", "-m", "small.safetensors", "-n", "64", "--steps", "1"};
    arguments.insert(arguments.end(), output.begin(), output.end());
    return limited(arguments);
  };
  EXPECT_TRUE(failed(generate({"--grid", "-o", "p.png"}), 1, "p.png"));
  EXPECT_TRUE(failed(generate({"--latents-out", "l"}), 1, "l"));
  EXPECT_TRUE(failed(limited({"convert", "small.safetensors", "-o", "e.safetensors"}), 1, "e.safetensors"));
}

// As services may be set up; the kernel knows it from 6.3 on.
TEST_F(WrongInput, WhereNoCodeMayBeMadeThatIsSaid) {
  if (with_address_sanitizer || with_thread_sanitizer) GTEST_SKIP() << "sanitizers make code, too";
  constexpr int set_mdwe = 65, refuse_gain = 1;
  const Result result = run({"generate", "-m", "small.safetensors", "-o", "p.png"},
                            {folder_.path(), [] {
                               if (::prctl(set_mdwe, refuse_gain, 0, 0, 0) != 0) ::_exit(125);
                             }});
  if (result.code == 125) GTEST_SKIP() << "the kernel knows no such limit";
  EXPECT_TRUE(failed(result, 1, "lets no program make code of its own"));
}

TEST_F(WrongInput, AFullDiskBehindStandardOutputIsNoticed) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  const Result result = run({"info", "small.safetensors"}, {folder_.path(), [] {
                                                              if (!std::freopen("/dev/full", "w", stdout))
                                                                ::_exit(125);
                                                            }});
  EXPECT_TRUE(failed(result, 1));
}

// What cannot be told is not told, and all else is as it would have been.
TEST_F(WrongInput, StandardErrorThatCannotBeWrittenToEndsNothing) {
  std::vector<std::function<void()>> ways = {[] { ::close(STDERR_FILENO); }};
  if (::access("/dev/full", W_OK) == 0)
    ways.emplace_back([] { ::dup2(::open("/dev/full", O_WRONLY), STDERR_FILENO); });
  for (const std::function<void()>& lost : ways) {
    const auto code = [&](const Arguments& arguments) { return run(arguments, {folder_.path(), lost}).code; };
    EXPECT_EQ(code({"info", "nosuch"}), 1);
    EXPECT_EQ(code({"infoo"}), 2);
    EXPECT_EQ(code({"generate", "-m", "small.safetensors", "-c", "zz", "-o", "p.png"}), 2);
    EXPECT_EQ(code({"info", "small.safetensors"}), 0);
  }
}

// Nor do results go into a file that was opened in the place of what is closed.
TEST_F(WrongInput, AClosedStandardOutputIsNoticed) {
  const auto closed = [] {
    for (const int each : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(each);
  };
  for (const Arguments& what : {Arguments{"info", "small.safetensors"}, Arguments{"--help"},
                                Arguments{"convert", "small.safetensors", "-o", "c.safetensors"}})
    EXPECT_EQ(run(what, {folder_.path(), closed}).code, 1) << what[0];
  fs::remove(folder_ / "c.safetensors");
}

TEST_F(WrongInput, APictureThatIsTooLargeForAWebpIsSaidBeforePainting) {
  const Result result = linnet({"generate", "a star", "--size", "16384x8", "--steps", "1", "-o", "p.webp"});
  EXPECT_TRUE(failed(result, 1, "p.webp: a WebP has at most 16383 pixels a side, not 16384 x 8"));
  EXPECT_EQ(result.out.find("text: "), std::string::npos) << result.out;
}

TEST_F(WrongInput, AFolderWithoutPermissionIsRefused) {
  const Result result =
      beside_a_locked_folder({"generate", "-m", "small.safetensors", "--steps", "1", "-o", "locked/p.png"});
  if (result.code == 127) GTEST_SKIP() << "the command cannot be run as another user here";
  EXPECT_TRUE(failed(result, 1, "ermission denied"));
}

TEST_F(WrongInput, ACacheWithoutPermissionIsRefusedBeforeTextsAreEncoded) {
  fs::permissions(folder_.path(), fs::perms::others_write, fs::perm_options::add);
  const Result result = beside_a_locked_folder({"generate", "a star", "--cache", "locked", "-o", "p.png"});
  if (result.code == 127) GTEST_SKIP() << "the command cannot be run as another user here";
  EXPECT_TRUE(failed(result, 1, "cannot write into the folder locked: Permission denied"));
}

}  // namespace
}  // namespace linnet::test
