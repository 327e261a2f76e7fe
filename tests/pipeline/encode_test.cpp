// Pictures to cached latents: what is stored, what is left out, and that an interrupted run ends as an
// undisturbed one.
#include "pipeline/encode.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "io/image.h"
#include "io/latents.h"
#include "io/picture_set.h"
#include "io/resize.h"
#include "io/safetensors.h"
#include "io/shapes.h"
#include "support/compare.h"
#include "support/refusal.h"
#include "support/tar_writer.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class Encode : public testing::Test {
 protected:
  Encode() : vae_(config()) {
    nn::initialize(vae_, 1);
    nn::freeze(vae_);
    write_data_set(folder_ / "pictures", 64, 16, 1);  // one of each class
    options_.size = 16;
    options_.stored = DType::f32;
  }
  static VaeConfig config() {
    VaeConfig config;
    config.block_out_channels = {8, 8};
    config.layers_per_block = 1;
    config.norm_num_groups = 4;
    return config;
  }
  PictureSet pictures() const { return PictureSet::open(folder_ / "pictures", 20); }
  EncodeResult encode(const std::string& name) const {
    return encode_pictures(vae_, "0123", pictures(), folder_ / name, options_);
  }

  TemporaryFolder folder_;
  Vae vae_;
  EncodeOptions options_;
};

TEST_F(Encode, StoresWhatTheAutoencoderSays) {
  options_.flip = true;
  const EncodeResult result = encode("latents");
  EXPECT_EQ(result.pictures, 64);
  EXPECT_EQ(result.shards, 4);
  EXPECT_TRUE(result.broken.empty());
  const LatentFolder latents = LatentFolder::open(folder_ / "latents");
  EXPECT_EQ(latents.count(), 64);
  EXPECT_EQ(latents.shape(), (Shape{4, 8, 8}));
  ASSERT_EQ(latents.class_names().size(), 64u);

  // The 30th picture is that of the 30th class; it lies in the second shard.
  fs::path path;
  for (const auto& entry : fs::directory_iterator(folder_ / "pictures" / latents.class_names()[30]))
    if (entry.path().extension() == ".png") path = entry.path();
  EXPECT_EQ(latents.label(30), 30);
  for (const bool flipped : {false, true}) {
    Image image = read_image(path);
    if (flipped) image = flip_horizontal(image);
    const LatentMoments moments = vae_.encode(to_tensor({&image, 1}));
    const Tensor noise = Tensor::full({4, 8, 8}, 0.5f);
    Tensor drawn = Tensor::empty({1, 4, 8, 8}), expected = moments.sample(noise.reshape({1, 4, 8, 8}));
    latents.draw(30, flipped, noise.values<float>(), {drawn.mutable_data<float>(), 256});
    for (float& v : std::span(expected.mutable_data<float>(), 256)) v *= 0.18215f;
    EXPECT_LT(test::relative_error(drawn, expected), 1e-5);
  }
}

TEST_F(Encode, LargerPicturesAreCroppedAsAdmDoesIt) {
  write_data_set(folder_ / "large", 64, 40, 1);
  encode_pictures(vae_, "0123", PictureSet::open(folder_ / "large", 64), folder_ / "latents", options_);
  const LatentFolder latents = LatentFolder::open(folder_ / "latents");
  const fs::path path = pictures_below(folder_ / "large" / latents.class_names()[30]).front();
  const Image cropped = center_crop(read_image(path), 16);
  Tensor expected = vae_.encode(to_tensor({&cropped, 1})).mean.clone(), drawn = Tensor::empty({1, 4, 8, 8});
  latents.draw(30, false, std::vector<float>(256), {drawn.mutable_data<float>(), 256});
  for (float& v : std::span(expected.mutable_data<float>(), 256)) v *= 0.18215f;
  EXPECT_LT(test::relative_error(drawn, expected), 1e-5);
}

TEST_F(Encode, F16IsEnough) {
  encode("f32");
  options_.stored = DType::f16;
  encode("f16");
  const auto a = SafetensorsFile::open(shard_path(folder_ / "f32", 0, 4));
  const auto b = SafetensorsFile::open(shard_path(folder_ / "f16", 0, 4));
  EXPECT_EQ(b.tensor("mean").dtype(), DType::f16);
  EXPECT_LT(test::relative_error(b.tensor("mean"), a.tensor("mean")), 1e-3);
}

TEST_F(Encode, BrokenPicturesAreLeftOutAndListed) {
  std::ofstream(folder_ / "pictures/red-star/broken.png") << "no picture";
  std::ofstream(folder_ / "pictures/red-star/empty.jpg");
  const EncodeResult result = encode("latents");
  EXPECT_EQ(result.pictures, 64);
  ASSERT_EQ(result.broken.size(), 2u);
  EXPECT_NE((result.broken[0] + result.broken[1]).find("broken.png is neither a PNG nor a JPEG"),
            std::string::npos);
  EXPECT_EQ(LatentFolder::open(folder_ / "latents").count(), 64);
  EXPECT_EQ(encode("latents").broken, result.broken);  // also when there is nothing left to do
}

TEST_F(Encode, AnInterruptedRunEndsAsAnUndisturbedOne) {
  encode("whole");
  struct Stop {};
  for (const int64_t stop : {8, 24, 41, 64}) {  // in the first shard, in others, at the very end
    options_.on_pictures = [&](int64_t done, int64_t) {
      if (done >= stop) throw Stop();
    };
    try {
      encode("parts");
    } catch (const Stop&) {
    }
  }
  options_.on_pictures = {};
  const EncodeResult result = encode("parts");
  EXPECT_EQ(result.pictures, 64);
  EXPECT_LT(result.written, 4);
  for (int64_t shard = 0; shard < 4; ++shard)
    EXPECT_EQ(contents(shard_path(folder_ / "parts", shard, 4)),
              contents(shard_path(folder_ / "whole", shard, 4)));
  EXPECT_EQ(encode("parts").written, 0);
}

// So that it shows and can be stopped where nothing is left to encode, too.
TEST_F(Encode, ARunThatFindsAllShardsThereSaysHowFarItIs) {
  encode("latents");
  std::vector<int64_t> checked, found;
  options_.on_checked = [&](int64_t done, int64_t count) {
    EXPECT_EQ(count, 64);
    EXPECT_TRUE(found.empty());
    checked.push_back(done);
  };
  options_.on_pictures = [&](int64_t done, int64_t now) {
    EXPECT_EQ(now, 0);
    found.push_back(done);
  };
  encode("latents");
  EXPECT_EQ(checked.back(), 64);
  EXPECT_EQ(found, (std::vector<int64_t>{20, 40, 60, 64}));
}

TEST_F(Encode, ReadsTarFiles) {
  fs::create_directories(folder_ / "tars");
  {
    test::TarWriter tar(folder_ / "tars/0.tar");
    tar.add("a.png", contents(*fs::directory_iterator(folder_ / "pictures/red-star")));
    tar.add("a.cls", "12");
  }
  const PictureSet set = PictureSet::open(folder_ / "tars", 1000);
  EXPECT_EQ(encode_pictures(vae_, "0123", set, folder_ / "latents", options_).pictures, 1);
  EXPECT_EQ(LatentFolder::open(folder_ / "latents").label(0), 12);
}

TEST_F(Encode, APictureThatChangedInItsSizeIsAnotherPicture) {
  encode("latents");
  const fs::path picture = *fs::directory_iterator(folder_ / "pictures/red-star");
  std::string bytes = contents(picture);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  std::ofstream(picture, std::ios::binary) << bytes;
  test::expect_refused("it was encoded from other pictures", [&] { encode("latents"); });
}

TEST_F(Encode, LatentsThatSayNothingOfContentsAreAccepted) {
  encode("latents");
  const fs::path first = shard_path(folder_ / "latents", 0, 4);
  LatentSettings before = read_latent_summary(first).settings;
  EXPECT_FALSE(before.contents.empty());
  before.contents = "";
  const auto shard = SafetensorsFile::open(first);
  LatentShard same{{{shard.tensor("mean"), shard.tensor("logvar"), {}, {}}}, shard.tensor("labels")};
  same.class_names = pictures().class_names();
  write_latent_shard(first, same, before);
  fs::remove(shard_path(folder_ / "latents", 2, 4));
  EXPECT_EQ(encode("latents").written, 1);
  EXPECT_EQ(LatentFolder::open(folder_ / "latents").count(), 64);
}

TEST_F(Encode, AFolderOfOtherLatentsIsRefused) {
  encode("latents");
  options_.flip = true;
  EXPECT_NE(test::refusal([&] { encode("latents"); }).find("choose another folder"), std::string::npos);
  options_.flip = false;
  options_.size = 17;
  EXPECT_THROW(encode("other"), UsageError);
}

}  // namespace
}  // namespace linnet
