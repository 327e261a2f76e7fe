// linnet convert: from every kind of file that can be read, and what stops it leaves nothing behind.
#include <fmt/format.h>
#include <grp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "store/dit_file.h"
#include "store/metadata.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

bool says(const Result& result, const std::string& text) { return result.out.find(text) != std::string::npos; }

class Convert : public testing::Test {
 protected:
  Result convert(const std::string& model, const Arguments& more) const {
    Arguments all = {"convert", model};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }

  TemporaryFolder folder_;
  const std::string dit_ = data_file("reference/dit_softmax.model.safetensors");
};

TEST_F(Convert, ToEightBitsItIsAQuarterAndPaintsNearlyTheSame) {
  ASSERT_TRUE(succeeded(convert("builtin", {"-o", "f32.safetensors", "--dtype", "f32"})));
  const Result result = convert("builtin", {"-o", "int8.safetensors", "--dtype", "int8"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_TRUE(says(result, "i8")) << result.out;
  EXPECT_LT(3 * fs::file_size(folder_ / "int8.safetensors"), fs::file_size(folder_ / "f32.safetensors"));
  const Result painted =
      run({"generate", "--model", "int8.safetensors", "--steps", "2", "-o", "a.png"}, {folder_.path()});
  EXPECT_TRUE(succeeded(painted));
  EXPECT_TRUE(says(painted, "products in int8")) << painted.out;
  EXPECT_TRUE(failed(convert("int8.safetensors", {"-o", "d", "--names", "diffusers", "--dtype", "int8"}), 2,
                     "diffusers does not read"));
}

// By way of each kind of file, the model computes what PyTorch does.
TEST_F(Convert, FromAndToEveryKindOfFileItIsTheSameModel) {
  const std::string lit = data_file("checkpoints/lit.pt"), diffusers = data_file("checkpoints/diffusers");
  ASSERT_TRUE(succeeded(convert(lit, {"-o", "lit.safetensors"})));
  ASSERT_TRUE(succeeded(convert("lit.safetensors", {"-o", "lit-again.safetensors"})));
  ASSERT_TRUE(succeeded(convert(diffusers, {"-o", "dit.safetensors"})));
  ASSERT_TRUE(succeeded(convert("dit.safetensors", {"-o", "folder", "--names", "diffusers"})));
  ASSERT_TRUE(succeeded(convert("folder", {"-o", "dit-again.safetensors"})));
  ASSERT_TRUE(succeeded(convert("folder", {"-o", "theirs.safetensors", "--names", "diffusers"})));
  EXPECT_EQ(listing(folder_.path()),
            (std::vector<std::string>{"dit-again.safetensors", "dit.safetensors", "folder",
                                      "folder/config.json", "folder/diffusion_pytorch_model.safetensors",
                                      "lit-again.safetensors", "lit.safetensors", "theirs.safetensors"}));
  for (const auto& [file, name] : {std::pair{"lit-again.safetensors", "dit_lit"},
                                   {"dit.safetensors", "dit_softmax"},
                                   {"folder", "dit_softmax"},
                                   {"dit-again.safetensors", "dit_softmax"},
                                   {"theirs.safetensors", "dit_softmax"}}) {
    const std::string io = data_file(fmt::format("reference/{}.io.safetensors", name));
    ASSERT_TRUE(succeeded(run({"forward", file, io, "-o", "out.safetensors"}, {folder_.path()}))) << file;
    EXPECT_LT(relative_error(SafetensorsFile::open(folder_ / "out.safetensors").tensor("out"),
                             SafetensorsFile::open(io).tensor("out")),
              1e-4)
        << file;
  }
}

TEST_F(Convert, SaysWhatItDid) {
  const Result result = convert(data_file("checkpoints/lit.pt"), {"-o", "lit.safetensors", "--dtype", "bf16"});
  for (const char* text : {"lit.pt: PyTorch, \"ema\" of it, original names, f32", "LiT (mixer lit), 2 blocks",
                           "lit.safetensors: safetensors, original names, bf16; 40 tensors"})
    EXPECT_TRUE(says(result, text)) << text << "\n" << result.out;
  EXPECT_TRUE(says(convert(data_file("checkpoints/diffusers"), {"-o", "d", "--names", "diffusers"}),
                   "downscale_freq_shift = 0"));
}

TEST_F(Convert, KeepsTypesUnlessOneIsAskedFor) {
  ASSERT_TRUE(succeeded(convert(dit_, {"-o", "bf16.safetensors", "--dtype", "bf16"})));
  ASSERT_TRUE(succeeded(convert("bf16.safetensors", {"-o", "kept.safetensors"})));
  ASSERT_TRUE(succeeded(convert("bf16.safetensors", {"-o", "f32.safetensors", "--dtype", "f32"})));
  const auto type = [&](const char* file) {
    return SafetensorsFile::open(folder_ / file).entry("blocks.1.mlp.fc1.weight").dtype;
  };
  EXPECT_EQ(type("kept.safetensors"), DType::bf16);
  EXPECT_EQ(type("f32.safetensors"), DType::f32);
  EXPECT_EQ(contents(folder_ / "bf16.safetensors"), contents(folder_ / "kept.safetensors"));
}

TEST_F(Convert, MayReplaceWhatItReads) {
  ASSERT_TRUE(succeeded(convert(dit_, {"-o", "f32.safetensors", "--dtype", "f32"})));
  ASSERT_TRUE(succeeded(convert("f32.safetensors", {"-o", "bf16.safetensors", "--dtype", "bf16"})));
  ASSERT_TRUE(succeeded(convert("f32.safetensors", {"-o", "f32.safetensors", "--dtype", "bf16"})));
  EXPECT_EQ(contents(folder_ / "f32.safetensors"), contents(folder_ / "bf16.safetensors"));
  fs::copy_file(folder_ / "bf16.safetensors", folder_ / "new.safetensors.partial");
  EXPECT_TRUE(failed(convert("new.safetensors.partial", {"-o", "new.safetensors"}), 2, "which is read"));
  EXPECT_EQ(contents(folder_ / "new.safetensors.partial"), contents(folder_ / "bf16.safetensors"));
}

TEST_F(Convert, KeepsTheNamesOfClasses) {
  const std::string model = write_small_model(folder_ / "m.safetensors");
  ASSERT_TRUE(succeeded(convert(model, {"-o", "c.safetensors", "--dtype", "bf16"})));
  EXPECT_EQ(load_dit(folder_ / "c.safetensors").class_names, load_dit(model).class_names);
}

// What lay beside the weights was of another folder.
TEST_F(Convert, TakesNothingAlongOfTheFolderThatItReads) {
  fs::copy(data_file("checkpoints/diffusers"), folder_ / "d", fs::copy_options::recursive);
  fs::create_directories(folder_ / "d/scheduler");
  std::ofstream(folder_ / "d/model_index.json") << "{}";
  std::ofstream(folder_ / "d/scheduler/scheduler_config.json") << R"({"prediction_type": "v_prediction"})";
  ASSERT_TRUE(succeeded(convert("d", {"-o", "one.safetensors"})));
  const auto metadata = SafetensorsFile::open(folder_ / "one.safetensors").metadata();
  ASSERT_EQ(metadata.size(), 1u);
  EXPECT_EQ(metadata.begin()->first, config_key);
  EXPECT_EQ(read_dit_config(Weights::open(folder_ / "one.safetensors")).prediction, Prediction::v);
}

TEST_F(Convert, TakesRawWeightsWhenAsked) {
  ASSERT_TRUE(
      succeeded(convert(data_file("checkpoints/lit.pt"), {"-o", "raw.safetensors", "--weights", "raw"})));
  const Tensor weight = SafetensorsFile::open(folder_ / "raw.safetensors").tensor("blocks.0.mlp.fc1.weight");
  for (const float value : weight.values<float>()) ASSERT_EQ(value, 0.0f);
}

TEST_F(Convert, WrongUsageIsOneSentence) {
  EXPECT_TRUE(failed(convert(dit_, {"-o", "out.pt"}), 2, "must end in .safetensors"));
  EXPECT_TRUE(failed(convert(dit_, {"-o", "x.safetensors", "--dtype", "i8"}), 2, "bf16, f16, f32 or int8"));
  EXPECT_TRUE(
      failed(convert(dit_, {"-o", "x.safetensors", "--names", "mine"}), 2, "\"original\" or \"diffusers\""));
  EXPECT_TRUE(failed(convert(dit_, {"-o", "x.safetensors", "--weights", "best"}), 2, "\"ema\" or \"raw\""));
  EXPECT_TRUE(
      failed(convert(data_file("checkpoints/lit.pt"), {"-o", "x", "--names", "diffusers"}), 2, "no LiT"));
  EXPECT_TRUE(failed(convert("none.pt", {"-o", "x.safetensors"}), 1, "none.pt"));
  EXPECT_TRUE(failed(convert(dit_, {"-o", "none/x.safetensors"}), 1, "no folder none"));
  EXPECT_TRUE(failed(convert(dit_, {"-o", "none/x", "--names", "diffusers"}), 1, "none/x"));
  EXPECT_TRUE(failed(convert(data_file("reference/dit_lit.io.safetensors"), {"-o", "x.safetensors"}), 1,
                     "not the weights of a DiT or LiT"));
  EXPECT_TRUE(listing(folder_.path()).empty());
}

TEST_F(Convert, ANumberTooLargeForF16IsRefusedByName) {
  DiT model(small_config());
  nn::initialize(model, 1);
  model.visit("", [](const std::string& name, nn::Parameter& p) {
    if (name == "blocks.1.mlp.fc2.bias") p.value.mutable_data<float>()[3] = 1e5f;
  });
  save_dit(folder_ / "m.safetensors", model, DType::f32);
  EXPECT_TRUE(failed(convert("m.safetensors", {"-o", "h.safetensors", "--dtype", "f16"}), 1,
                     "'blocks.1.mlp.fc2.bias' holds 100000, which is too large for f16; bf16 holds it"));
  EXPECT_EQ(listing(folder_.path()), std::vector<std::string>{"m.safetensors"});
}

TEST_F(Convert, AFullDiskLeavesNothingOfAFolder) {
  const Result result =
      run({"convert", dit_, "-o", "folder", "--names", "diffusers"}, {folder_.path(), [] {
                                                                        const rlimit limit{9000, 9000};
                                                                        ::setrlimit(RLIMIT_FSIZE, &limit);
                                                                      }});
  EXPECT_TRUE(failed(result, 1, "cannot write folder/diffusion_pytorch_model.safetensors: File too large"));
  EXPECT_TRUE(listing(folder_.path()).empty());
}

// A sharded model in it would be read in its place.
TEST_F(Convert, AFolderThatHoldsSomethingIsLeftAlone) {
  fs::copy(data_file("checkpoints/diffusers"), folder_ / "folder", fs::copy_options::recursive);
  const std::vector<std::string> before = listing(folder_.path());
  const std::string config = contents(folder_ / "folder/transformer/config.json");
  for (const char* folder : {"folder", "folder/transformer"})
    EXPECT_TRUE(failed(convert(dit_, {"-o", folder, "--names", "diffusers"}), 2, "is there already"));
  EXPECT_EQ(listing(folder_.path()), before);
  EXPECT_EQ(contents(folder_ / "folder/transformer/config.json"), config);
  fs::create_directory(folder_ / "empty");
  ASSERT_TRUE(succeeded(convert(dit_, {"-o", "empty", "--names", "diffusers"})));
  EXPECT_TRUE(succeeded(run({"info", "empty"}, {folder_.path()})));
}

TEST_F(Convert, WithoutPermissionNothingIsTried) {
  fs::permissions(folder_.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read |
                                      fs::perms::others_exec);
  const auto as_nobody = [] {
    constexpr uid_t nobody = 65534;
    if (::geteuid() != 0) return;
    if (::setgroups(0, nullptr) != 0 || ::setgid(nobody) != 0 || ::setuid(nobody) != 0) ::_exit(127);
  };
  const Surroundings locked{folder_.path(), as_nobody};
  const Result file = run({"convert", "builtin", "-o", "x.safetensors"}, locked);
  fs::permissions(folder_.path(), fs::perms::owner_all);
  if (file.code == 127) GTEST_SKIP() << "the command cannot be run as another user here";
  EXPECT_TRUE(failed(file, 1, "ermission denied"));
  EXPECT_TRUE(listing(folder_.path()).empty());
}

// A conversion that takes some tens of milliseconds, met by a signal while it writes.
class InterruptedConversion : public Convert {
 protected:
  InterruptedConversion() {
    DiTConfig config = small_config();
    config.hidden_size = 384;
    config.depth = 12;
    write_small_model(folder_ / "large.safetensors", config);
  }

  Result interrupt(int signal) const {
    fs::remove(folder_ / "out.safetensors");  // of a round before, for which waiting would end at once
    Process process({"convert", "large.safetensors", "-o", "out.safetensors", "--dtype", "bf16"},
                    {folder_.path()});
    while (!fs::exists(folder_ / "out.safetensors.partial") && !fs::exists(folder_ / "out.safetensors"))
      ::usleep(100);
    process.send(signal);
    return process.wait();
  }
};

TEST_F(InterruptedConversion, ByCtrlCLeavesNothing) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const Result result = interrupt(signal);
    if (result.code == 0) continue;  // it had just ended
    EXPECT_EQ(result.code, 128 + signal);
    EXPECT_EQ(result.err, "linnet: interrupted\n");
    EXPECT_EQ(listing(folder_.path()), std::vector<std::string>{"large.safetensors"});
  }
}

TEST_F(InterruptedConversion, ByAKillLeavesTheOldFileWhole) {
  ASSERT_TRUE(succeeded(convert(dit_, {"-o", "out.safetensors"})));
  const std::string old = contents(folder_ / "out.safetensors");
  Process process({"convert", "large.safetensors", "-o", "out.safetensors", "--dtype", "bf16"},
                  {folder_.path()});
  while (!fs::exists(folder_ / "out.safetensors.partial") && contents(folder_ / "out.safetensors") == old)
    ::usleep(100);
  process.send(SIGKILL);
  process.wait();
  const bool kept = contents(folder_ / "out.safetensors") == old;
  EXPECT_TRUE(kept || succeeded(run({"info", "out.safetensors"}, {folder_.path()})));
  ASSERT_TRUE(succeeded(convert("large.safetensors", {"-o", "out.safetensors", "--dtype", "bf16"})));
  EXPECT_EQ(listing(folder_.path()), (std::vector<std::string>{"large.safetensors", "out.safetensors"}));
}

}  // namespace
}  // namespace linnet::test
