// Folders of latents: which shards make one up, what a shard says of itself, and names of any bytes.
#include "io/latents.h"

#include <gtest/gtest.h>

#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

class Latents : public testing::Test {
 protected:
  Latents() { settings_.autoencoder = "vae"; }

  // A shard whose groups have these shapes.
  void write(int64_t shard, int64_t shards, const std::vector<Shape>& shapes = {{1, 2, 4, 4}}) {
    LatentShard made;
    int64_t pictures = 0;
    for (const Shape& shape : shapes) {
      made.groups.push_back({Tensor::zeros(shape), Tensor::zeros(shape), {}, {}});
      pictures += shape[0];
    }
    made.labels = Tensor::zeros({pictures}, DType::i64);
    made.class_names = class_names_;
    made.broken = broken_;
    settings_.shards = shards;
    write_latent_shard(path(shard, shards), made, settings_);
  }
  std::filesystem::path path(int64_t shard, int64_t shards) const {
    return shard_path(folder_.path(), shard, shards);
  }
  std::string refusal() const {
    return test::refusal([&] { LatentFolder::open(folder_.path()); });
  }

  TemporaryFolder folder_;
  LatentSettings settings_;
  std::vector<std::string> class_names_, broken_;
};

TEST_F(Latents, ShardsOfTwoEncodingsAreNoFolder) {
  write(0, 2);
  write(1, 2);
  EXPECT_EQ(LatentFolder::open(folder_.path()).count(), 2);
  write(0, 1);
  EXPECT_NE(refusal().find("latents in 1 shards and others in 2"), std::string::npos) << refusal();
}

TEST_F(Latents, AFolderThatHoldsOthersIsSaidToBeforeTheWork) {
  const auto refused = [&](int64_t shards) {
    return test::refusal([&] { check_shards_of(folder_.path(), shards); });
  };
  EXPECT_EQ(test::refusal([&] { check_shards_of(folder_ / "none", 3); }), "accepted");
  EXPECT_EQ(refused(3), "accepted");
  write(1, 3);
  EXPECT_EQ(refused(3), "accepted");
  EXPECT_NE(refused(2).find("latents in 3 shards, and not in 2"), std::string::npos) << refused(2);
}

TEST_F(Latents, AShardThatWasRenamedIsRefused) {
  write(0, 2);
  std::filesystem::rename(path(0, 2), path(0, 1));
  EXPECT_NE(refusal().find("one of 2 shards, and its name says 1"), std::string::npos) << refusal();
}

TEST_F(Latents, OnlyPicturesHaveASize) {
  write(0, 2, {{2, 2, 4, 4}, {0, 2, 8, 8}});
  write(1, 2);
  EXPECT_EQ(LatentFolder::open(folder_.path()).shape(), (Shape{2, 4, 4}));
  write(1, 2, {{1, 2, 4, 4}, {1, 2, 2, 8}});
  const LatentFolder folder = LatentFolder::open(folder_.path());
  EXPECT_EQ(test::refusal([&] { folder.shape(); }),
            "latents of shapes (2, 4, 4) and (2, 2, 8) are not of one size");
  EXPECT_EQ(folder.shape(3), (Shape{2, 2, 8}));
}

TEST_F(Latents, WhatWasLeftOutMayHaveAnyName) {
  broken_ = {"a\xff.png: it is cut short", "ä.png: no picture"};
  write(0, 1);
  EXPECT_EQ(read_latent_summary(path(0, 1)).broken,
            (std::vector<std::string>{"a\uFFFD.png: it is cut short", "ä.png: no picture"}));
}

TEST_F(Latents, ClassesAreNamedByAllShardsAlike) {
  write(0, 3);  // as an older version may have written it
  class_names_ = {"cat", "dog"};
  write(1, 3);
  write(2, 3);
  EXPECT_EQ(LatentFolder::open(folder_.path()).class_names(), class_names_);
  class_names_ = {"cat", "cow"};
  write(2, 3);
  EXPECT_NE(refusal().find("latents-00002-of-00003.safetensors: its classes have other names"),
            std::string::npos)
      << refusal();
}

TEST_F(Latents, TheirTypesComeBack) {
  settings_.stored = "f16";
  settings_.products = "bf16";
  write(0, 1);
  EXPECT_EQ(read_latent_summary(path(0, 1)).settings, settings_);
}

// As in a folder that an older version began.
TEST_F(Latents, ShardsThatSayLessGoWithThoseThatSayMore) {
  write(0, 2);
  settings_.contents = "0123";
  settings_.products = "bf16";
  write(1, 2);
  EXPECT_EQ(LatentFolder::open(folder_.path()).count(), 2);
  write(0, 2);
  settings_.contents = "4567";
  write(1, 2);
  EXPECT_NE(refusal().find("it was encoded otherwise than"), std::string::npos) << refusal();
}

TEST_F(Latents, ATypeThatIsNotSaidAgreesWithAny) {
  LatentSettings wanted = settings_;
  wanted.stored = "f16";
  wanted.products = "bf16";
  EXPECT_TRUE(agree(settings_, wanted));
  EXPECT_FALSE(settings_ == wanted);
  settings_.stored = "f32";
  EXPECT_FALSE(agree(settings_, wanted));
  settings_.stored = "f16";
  EXPECT_TRUE(agree(settings_, wanted));
  settings_.size = 512;
  EXPECT_FALSE(agree(settings_, wanted));
}

}  // namespace
}  // namespace linnet
