// Others' checkpoints on the command line: info, forward and inherit.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/safetensors.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

bool says(const Result& result, const std::string& text) { return result.out.find(text) != std::string::npos; }

TEST(Checkpoints, InfoDescribesThem) {
  const Result torch = run({"info", data_file("checkpoints/lit.pt"), "--tensors"});
  EXPECT_TRUE(succeeded(torch));
  EXPECT_TRUE(says(torch, "LiT (mixer lit), 2 blocks, width 32, 2 heads, 16 tokens")) << torch.out;
  EXPECT_TRUE(says(torch, "blocks.1.attn.dwc.weight")) << torch.out;
  const Result diffusers = run({"info", data_file("checkpoints/diffusers")});
  EXPECT_TRUE(succeeded(diffusers));
  EXPECT_TRUE(says(diffusers, "DiT (mixer softmax), 2 blocks, width 32, 4 heads, 16 tokens")) << diffusers.out;
}

TEST(Checkpoints, ForwardAgreesWithPyTorch) {
  const TemporaryFolder folder;
  const std::string out = folder / "out.safetensors";
  for (const auto& [checkpoint, name] :
       {std::pair{"lit.pt", "dit_lit"}, std::pair{"diffusers", "dit_softmax"}}) {
    const std::string io = data_file(fmt::format("reference/{}.io.safetensors", name));
    EXPECT_TRUE(
        succeeded(run({"forward", data_file(fmt::format("checkpoints/{}", checkpoint)), io, "-o", out})));
    EXPECT_LT(relative_error(SafetensorsFile::open(out).tensor("out"), SafetensorsFile::open(io).tensor("out")),
              1e-4);
  }
}

TEST(Checkpoints, ForwardKeepsWhatItReads) {
  const TemporaryFolder folder;
  namespace fs = std::filesystem;
  fs::copy_file(data_file("reference/dit_lit.io.safetensors"), folder / "io");
  fs::copy_file(data_file("reference/dit_lit.model.safetensors"), folder / "model");
  fs::copy(data_file("checkpoints/diffusers"), folder / "diffusers", fs::copy_options::recursive);
  fs::create_symlink("io", folder / "link");
  const std::string io = contents(folder / "io"), model = contents(folder / "model");
  const std::string inside = "diffusers/transformer/diffusion_pytorch_model.safetensors";
  const std::string weights = contents(folder.path() / inside);
  for (const char* output : {"io", "./io", "link", "model"})
    EXPECT_TRUE(failed(run({"forward", "model", "io", "-o", output}, {folder.path()}), 2,
                       "it is the file that is read"))
        << output;
  EXPECT_TRUE(failed(run({"forward", "diffusers", "io", "-o", inside}, {folder.path()}), 2,
                     "it is the file that is read"));
  EXPECT_EQ(contents(folder / "io"), io);
  EXPECT_EQ(contents(folder / "model"), model);
  EXPECT_EQ(contents(folder.path() / inside), weights);
}

TEST(Checkpoints, OnesThatWantToRunSomethingAreRefused) {
  EXPECT_TRUE(
      failed(run({"info", data_file("torch/broken/system_call.pt")}), 1, "it wants to call posix.system"));
  EXPECT_TRUE(
      failed(run({"generate", "--model", data_file("torch/broken/cut_off.pt"), "-o", "x.png"}), 1, "cut off"));
}

TEST(InheritVerb, WritesAModelThatPaints) {
  const TemporaryFolder folder;
  const std::string lit = folder / "lit.safetensors";
  const Result result =
      run({"inherit", "--from", data_file("checkpoints/diffusers"), "--also", "kv", "-o", lit});
  EXPECT_TRUE(succeeded(result));
  EXPECT_TRUE(says(result, "to   LiT (mixer lit), 2 blocks, width 32, 2 heads")) << result.out;
  EXPECT_TRUE(says(result, "fresh: no convolution is taken over")) << result.out;
  const std::string io = data_file("reference/dit_lit.io.safetensors");
  EXPECT_TRUE(succeeded(run({"forward", lit, io, "-o", folder / "out.safetensors"})));
}

TEST(InheritVerb, KnowsEveryMixer) {
  const TemporaryFolder folder;
  const std::string teacher = data_file("checkpoints/diffusers"), student = folder / "student.safetensors";
  for (const char* mixer : {"softmax", "linear", "lit", "focused", "focused_gelu"}) {
    EXPECT_TRUE(succeeded(run({"inherit", "--from", teacher, "--mixer", mixer, "-o", student})));
    const Result info = run({"info", student});
    const char* const family = std::string(mixer) == "softmax" ? "DiT" : "LiT";
    EXPECT_TRUE(says(info, fmt::format("{} (mixer {})", family, mixer))) << info.out;
  }
}

TEST(InheritVerb, KeepsItsTeacher) {
  const TemporaryFolder folder;
  const std::string teacher = folder / "teacher.safetensors";
  std::filesystem::copy_file(data_file("reference/dit_softmax.model.safetensors"), teacher);
  const std::string before = contents(teacher);
  EXPECT_TRUE(failed(run({"inherit", "--from", teacher, "-o", folder / "./teacher.safetensors"}), 2,
                     "it is the file that is read"));
  EXPECT_EQ(contents(teacher), before);
}

TEST(InheritVerb, RefusesWhatMakesNoSense) {
  const TemporaryFolder folder;
  const std::string teacher = data_file("checkpoints/diffusers"), lit = folder / "lit.safetensors";
  EXPECT_TRUE(failed(run({"inherit", "--from", teacher, "--also", "x", "-o", lit}), 2, "names no projections"));
  EXPECT_TRUE(
      failed(run({"inherit", "--from", teacher, "--heads", "3", "-o", lit}), 2, "num_heads must divide"));
  EXPECT_TRUE(failed(run({"inherit", "--from", teacher, "--heads", "-1", "-o", lit}), 2,
                     "--heads is at least 0, not -1"));
  EXPECT_TRUE(failed(run({"inherit", "--from", teacher, "--texts", "--cross-heads", "-1", "-o", lit}), 2,
                     "--cross-heads is at least 0, not -1"));
  EXPECT_TRUE(
      failed(run({"inherit", "--from", teacher, "--mixer", "mamba", "-o", lit}), 2, "softmax, linear, lit"));
  EXPECT_TRUE(
      failed(run({"inherit", "--from", teacher, "--weights", "best", "-o", lit}), 2, "\"ema\" or \"raw\""));
  EXPECT_TRUE(failed(run({"inherit", "--from", folder / "none.pt", "-o", lit}), 1, "none.pt"));
  EXPECT_TRUE(listing(folder.path()).empty());
}

}  // namespace
}  // namespace linnet::test
