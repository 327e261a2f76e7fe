// The way of somebody with pictures and an autoencoder: encode, train, paint.
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/tar_writer.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class EncodeCommand : public testing::Test {
 protected:
  EncodeCommand() {
    copy_model("vae_plain", folder_ / "vae", "diffusion_pytorch_model.safetensors");
    EXPECT_TRUE(succeeded(linnet({"data", "shapes", "pictures", "--count", "128", "--size", "32"})));
  }
  Result linnet(const Arguments& arguments) const { return run(arguments, {folder_.path()}); }
  Result encode(const Arguments& more) const {
    Arguments all = {"encode", "pictures", "--vae", "vae", "--size", "32", "--shard", "50"};
    all.insert(all.end(), more.begin(), more.end());
    return linnet(all);
  }

  TemporaryFolder folder_;
};

TEST_F(EncodeCommand, LatentsTrainAModelThatPaints) {
  std::ofstream(folder_ / "pictures/red-star/broken.png") << "no picture";
  const Result encoded = encode({"--flip", "-o", "latents"});
  ASSERT_TRUE(succeeded(encoded));
  EXPECT_NE(encoded.out.find("left out: pictures/red-star/broken.png is neither"), std::string::npos)
      << encoded.out;
  EXPECT_NE(encoded.out.find("128 pictures in 3 shards, 3 of them new, 1 left out: latents"),
            std::string::npos);
  EXPECT_EQ(listing(folder_ / "latents").size(), 3u);

  std::ofstream(folder_ / "tiny.toml")
      << "[model]\nmixer = \"lit\"\ninput_size = 8\npatch_size = 2\nin_channels = 4\n"
         "hidden_size = 16\ndepth = 1\nnum_heads = 2\nnum_classes = 64\n"
         "[data]\npath = \"latents\"\nflip = true\n[train]\nbatch = 8\nsteps = 3\n"
         "[output]\ndir = \"run\"\n";
  ASSERT_EQ(linnet({"train", "tiny.toml"}).code, 0);
  ASSERT_TRUE(succeeded(linnet({"generate", "-m", "run/model.safetensors", "--vae", "vae", "-c", "red-star",
                                "--steps", "2", "-o", "p.png"})));
  EXPECT_EQ(read_image(folder_ / "p.png").width, 32);
}

TEST_F(EncodeCommand, ANameThatIsNotPrintableIsSaidOnce) {
  std::ofstream(folder_ / "pictures/red-star/a\nb.png") << "no picture";
  const Result encoded = encode({"-o", "latents"});
  EXPECT_NE(encoded.out.find("left out: pictures/red-star/a\\nb.png is neither"), std::string::npos)
      << encoded.out;
}

TEST_F(EncodeCommand, KilledAndStartedAgainItMakesTheSameShards) {
  ASSERT_TRUE(succeeded(encode({"-o", "whole"})));
  for (const char* shard : {"latents-00000-of-00003.safetensors", "latents-00001-of-00003.safetensors"}) {
    Process process({"encode", "pictures", "--vae", "vae", "--size", "32", "--shard", "50", "-o", "parts"},
                    {folder_.path()});
    for (int i = 0; i < 10'000 && !fs::exists(folder_ / "parts" / shard); ++i) ::usleep(1000);
    process.send(SIGKILL);
    process.wait();
  }
  ASSERT_TRUE(succeeded(encode({"-o", "parts"})));
  for (const std::string& name : listing(folder_ / "whole"))
    EXPECT_EQ(contents(folder_ / "whole" / name), contents(folder_ / "parts" / name)) << name;
}

// They need not talk, so that whatever starts them may do, and one may come later.
TEST_F(EncodeCommand, ProcessesShareTheShards) {
  ASSERT_TRUE(succeeded(encode({"-o", "whole"})));
  const auto as = [&](const char* index) {
    return run({"encode", "pictures", "--vae", "vae", "--size", "32", "--shard", "50", "-o", "shared"},
               {.folder = folder_.path(),
                .environment = {{"OMPI_COMM_WORLD_RANK", index}, {"OMPI_COMM_WORLD_SIZE", "2"}}});
  };
  const Result first = as("0");
  ASSERT_TRUE(succeeded(first));
  EXPECT_NE(first.out.find("process 1 of 2: "), std::string::npos) << first.out;
  EXPECT_NE(first.out.find("in 2 shards, 2 of them new"), std::string::npos) << first.out;
  EXPECT_EQ(listing(folder_ / "shared").size(), 2u);
  const Result second = as("1");
  ASSERT_TRUE(succeeded(second));
  EXPECT_NE(second.out.find("in 1 shard, 1 of them new"), std::string::npos) << second.out;
  ASSERT_EQ(listing(folder_ / "shared"), listing(folder_ / "whole"));
  for (const std::string& file : listing(folder_ / "whole"))
    EXPECT_EQ(contents(folder_ / "shared" / file), contents(folder_ / "whole" / file)) << file;
}

TEST_F(EncodeCommand, ATarFileThatMakesTooLargeAShardIsSaidAtTheStart) {
  fs::create_directory(folder_ / "tars");
  {
    TarWriter tar(folder_ / "tars/0.tar");
    tar.add("a.png", contents(*fs::directory_iterator(folder_ / "pictures/red-star")));
    tar.add("a.cls", "1");
  }
  const Arguments arguments = {"encode", "tars", "--vae", "vae", "--size", "32", "-o", "latents"};
  const char* const said = "one tar file is larger than 4 GB, up to 5 GB: each makes one shard";
  const Result small = linnet(arguments);
  ASSERT_TRUE(succeeded(small));
  EXPECT_EQ(small.out.find("larger than"), std::string::npos) << small.out;
  fs::remove_all(folder_ / "latents");
  fs::resize_file(folder_ / "tars/0.tar", size_t{5} << 30);  // a hole behind the archive's end
  const Result large = linnet(arguments);
  ASSERT_TRUE(succeeded(large));
  EXPECT_NE(large.out.find(said), std::string::npos) << large.out;
  EXPECT_NE(large.out.find("1 picture in 1 shard"), std::string::npos) << large.out;
}

TEST_F(EncodeCommand, WrongUsesAreRefused) {
  EXPECT_TRUE(
      failed(linnet({"encode", "pictures", "--vae", "vae", "-o", "l", "--size", "30"}), 2, "multiple of 4"));
  EXPECT_TRUE(failed(linnet({"encode", "pictures", "--vae", "vae", "-o", "l", "--shard", "0"}), 2, "shard"));
  EXPECT_TRUE(failed(encode({"-o", "l", "--stored", "f64"}), 2, "f64"));
  const std::pair<const char*, const char*> of_texts[] = {
      {"--text-encoder", "t5"}, {"--tokenizer", "t5"}, {"--text-tokens", "120"}, {"--cleaning", "strip"}};
  for (const auto& [option, value] : of_texts)
    EXPECT_TRUE(failed(encode({"-o", "l", option, value}), 2, "requires --captions")) << option;
  EXPECT_TRUE(failed(encode({"-o", "l", "--dtype", "int8"}), 2, "8 bits"));
  EXPECT_TRUE(failed(linnet({"encode", "none", "--vae", "vae", "-o", "l"}), 1, "none"));
  EXPECT_TRUE(failed(linnet({"encode", "pictures", "--vae", "none", "-o", "l"}), 1, "none"));
  const std::pair<const char*, const char*> outputs[] = {
      {"vae/config.json", "cannot make the folder vae/config.json: it is not a folder"},
      {"vae/config.json/l", "cannot make the folder vae/config.json/l: vae/config.json is not a folder"},
      {"", "it has no name"}};
  for (const auto& [output, why] : outputs)  // before the autoencoder is looked for
    EXPECT_TRUE(failed(linnet({"encode", "pictures", "--vae", "none", "-o", output}), 1, why)) << output;
  EXPECT_FALSE(fs::exists(folder_ / "l"));
}

}  // namespace
}  // namespace linnet::test
