// Training a model of texts on latents that were made with their texts' states: batches of one size each, what
// is said of sizes, and what does not fit.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <set>

#include "io/latents.h"
#include "support/compare.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* small_model =
    "[model]\nkind='pixart'\nsample_size=16\npatch_size=2\nin_channels=2\nhidden_size=16\ndepth=1\n"
    "num_heads=1\nnum_cross_heads=2\ncaption_channels=24\ncaption_tokens=20\nnull_caption=false\n"
    "prediction='x0'\n[train]\nbatch=2\nprecision='f32'\nlr=1e-2\nema=0.5\n[text]\ndropout=0.0\n";

// Twelve pictures of two sizes and their texts, in two shards.
class TextLatents : public testing::Test {
 protected:
  TextLatents() {
    settings_.shards = 2;
    settings_.bucketed = true;
    settings_.text_encoder = "t5";
    fs::create_directories(folder_ / "latents");
    write({DType::f32, DType::f32});
  }
  // With the states of each shard's texts in a type.
  void write(const std::array<DType, 2>& types) {
    for (int64_t shard = 0; shard < 2; ++shard) {
      const auto group = [&](int64_t count, int64_t height, int64_t width) {
        const Tensor mean = Tensor::full({count, 2, height, width}, static_cast<float>(shard));
        return LatentGroup{mean, Tensor::full(mean.shape(), -40.0f), {}, {}};
      };
      LatentShard s;
      s.groups = {group(4, 4, 4), group(2, 2, 8)};
      s.labels = Tensor::zeros({6}, DType::i64);
      std::vector<int64_t> offsets{0};
      for (int64_t i = 0; i < 6; ++i) offsets.push_back(offsets.back() + 1 + i);
      s.offsets = Tensor::from<int64_t>(offsets);
      const DType type = types[static_cast<size_t>(shard)];
      s.states = Tensor::full({offsets.back(), 24}, static_cast<float>(10 + shard)).to(type);
      s.no_text = Tensor::full({1, 24}, -1.0f).to(type);
      write_latent_shard(shard_path(folder_ / "latents", shard, 2), s, settings_);
    }
  }
  TrainConfig config(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> overrides = {"data.path=" + (folder_ / "latents").string()};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return parse_train_config(small_model, overrides);
  }

  TemporaryFolder folder_;
  LatentSettings settings_;
};

TEST_F(TextLatents, EveryBatchIsOfOneSizeAndAnEpochShowsEveryPictureOnce) {
  const auto data = open_data(config());
  std::multiset<std::pair<int64_t, int64_t>> seen;  // shard, and tokens of the text
  int64_t wide = 0;
  for (int64_t step = 6; step < 12; ++step) {  // the second epoch
    const Batch batch = data->batch(step);
    wide += batch.x0.size(3) == 8;
    for (int64_t i = 0; i < 2; ++i) {
      const int64_t length = batch.texts.length(i);
      const float first = batch.x0.data<float>()[i * batch.x0.numel() / 2];
      const auto shard = static_cast<int64_t>(first + 0.5f);
      EXPECT_EQ(batch.texts.states.data<float>()[batch.texts.offsets[static_cast<size_t>(i)] * 24],
                static_cast<float>(10 + shard));
      EXPECT_EQ(batch.x0.size(3) == 8, length > 4) << "a picture goes with its own text";
      seen.insert({shard, length});
    }
  }
  EXPECT_EQ(wide, 2);
  EXPECT_EQ(seen.size(), 12u);
  for (const auto& picture : seen) EXPECT_EQ(seen.count(picture), 1u);
}

TEST_F(TextLatents, EveryEpochHasAnOrderOfItsOwn) {
  const auto data = open_data(config());
  std::vector<ops::Offsets> first, second;  // which tell the texts apart
  for (int64_t step = 0; step < 6; ++step) {
    first.push_back(data->batch(step).texts.offsets);
    second.push_back(data->batch(6 + step).texts.offsets);
  }
  EXPECT_NE(first, second);
}

TEST_F(TextLatents, ADroppedTextIsThatOfNoText) {
  const auto data = open_data(config({"text.dropout=0.999"}));
  const Batch batch = data->batch(0);
  EXPECT_EQ(batch.texts.length(0), 1);
  EXPECT_EQ(batch.texts.states.data<float>()[0], -1.0f);
}

TEST_F(TextLatents, APartOfABatchHasItsOwnTexts) {
  const Batch batch = open_data(config({"train.batch=4"}))->batch(0);
  const Batch part = part_of(batch, 1, 3);
  ASSERT_EQ(part.texts.count(), 2);
  EXPECT_EQ(part.texts.states.size(0), batch.texts.length(1) + batch.texts.length(2));
  for (int64_t i = 0; i < 2; ++i)
    EXPECT_EQ(test::relative_error(part.texts.of(i), batch.texts.of(1 + i)), 0) << i;
}

TEST_F(TextLatents, ProcessesShareABatch) {
  const TrainConfig c = config({"train.batch=4"});
  for (int64_t step = 0; step < 4; ++step) {
    const Batch whole = open_data(c)->batch(step);
    for (int i = 0; i < 2; ++i) {
      const Batch wanted = part_of(whole, 2 * i, 2 * i + 2), part = open_data(c, {i, 2})->batch(step);
      EXPECT_EQ(test::relative_error(part.x0, wanted.x0), 0);
      EXPECT_EQ(test::relative_error(part.noise, wanted.noise), 0);
      EXPECT_EQ(part.texts.offsets, wanted.texts.offsets);
      EXPECT_EQ(test::relative_error(part.texts.states, wanted.texts.states), 0);
    }
  }
}

TEST_F(TextLatents, StatesStayInTheTypeOfTheFirstShard) {
  const auto states = [&](const std::vector<std::string>& more) {
    return open_data(config(more))->batch(0).texts.states;
  };
  write({DType::f16, DType::f32});
  const Tensor mixed = states({});
  EXPECT_EQ(mixed.dtype(), DType::f16);
  const Tensor values = mixed.to(DType::f32);
  for (const float x : values.values<float>()) EXPECT_TRUE(x == 10.0f || x == 11.0f) << x;
  EXPECT_EQ(states({"text.dropout=0.999"}).to(DType::f32).data<float>()[0], -1.0f);
  write({DType::f16, DType::f16});
  const TrainConfig c = config();
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  EXPECT_TRUE(std::isfinite(trainer.step(data->batch(0)).loss));
}

TEST_F(TextLatents, ASizeOfWhichThereAreTooFewWaitsAndTooFewOfAllAreRefused) {
  const auto data = open_data(config({"train.batch=3"}));
  for (int64_t step = 0; step < 6; ++step) EXPECT_TRUE(data->batch(step).x0.defined());
  EXPECT_EQ(data->remark(), "");
  EXPECT_EQ(
      open_data(config({"train.batch=6"}))->remark(),
      "4 of 12 pictures are of sizes with fewer than a batch, 6, and never come; a smaller train.batch would "
      "take them");
  EXPECT_NE(test::refusal([&] { open_data(config({"train.batch=9"})); }).find("as many pictures as a batch"),
            std::string::npos);
}

TEST_F(TextLatents, LatentsOfOneSizeThatTheModelIsNotOfAreSaid) {
  LatentShard s;
  s.offsets = Tensor::from<int64_t>({0, 1, 2});
  s.states = Tensor::zeros({2, 24});
  s.no_text = Tensor::zeros({1, 24});
  s.labels = Tensor::zeros({2}, DType::i64);
  settings_.shards = 1;
  const auto remark = [&](int64_t height, int64_t width) {
    fs::remove_all(folder_ / "latents");
    fs::create_directories(folder_ / "latents");
    const Tensor mean = Tensor::zeros({2, 2, height, width});
    s.groups = {{mean, mean, {}, {}}};
    write_latent_shard(shard_path(folder_ / "latents", 0, 1), s, settings_);
    return open_data(config({"model.sample_size=64"}))->remark();
  };
  EXPECT_EQ(remark(64, 64), "");
  EXPECT_EQ(remark(44, 88), "");  // bins of PixArt's
  EXPECT_EQ(remark(128, 32), "");
  EXPECT_EQ(remark(32, 32),
            "all latents are 32x32, but the model is configured for 64x64 (model.sample_size); encode with "
            "another --size unless it is to learn these");
  EXPECT_NE(remark(22, 44), "");
  EXPECT_NE(remark(62, 64), "");
}

TEST_F(TextLatents, AModelTrainsOnSeveralSizes) {
  const TrainConfig c = config();
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  for (int64_t step = 0; step < 6; ++step) EXPECT_TRUE(std::isfinite(trainer.step(data->batch(step)).loss));
}

TEST_F(TextLatents, LatentsThatDoNotFitAreRefused) {
  const auto refusal = [&](const std::vector<std::string>& more) {
    return test::refusal([&] { open_data(config(more)); });
  };
  EXPECT_NE(refusal({"model.caption_channels=32"}).find("24 wide, the model takes 32"), std::string::npos);
  EXPECT_NE(refusal({"model.in_channels=4"}).find("2 channels, the model takes 4"), std::string::npos);
  EXPECT_NE(refusal({"model.sample_size=12", "model.patch_size=4"}).find("cut into patches of 4"),
            std::string::npos);
  EXPECT_NE(refusal({"data.flip=true"}).find("no mirrored latents"), std::string::npos);
}

// Whatever a damaged file says of its texts.
TEST_F(TextLatents, DamagedTextsAreRefused) {
  LatentShard s;
  s.groups = {{Tensor::zeros({2, 2, 4, 4}), Tensor::zeros({2, 2, 4, 4}), {}, {}}};
  s.labels = Tensor::zeros({2}, DType::i64);
  s.no_text = Tensor::zeros({1, 24});
  s.states = Tensor::zeros({5, 24});
  for (const std::vector<int64_t>& offsets :
       {std::vector<int64_t>{0, 2, 6}, {0, 5}, {0, 5, 5}, {0, 7, 5}, {1, 2, 5}, {0, -3, 5}}) {
    s.offsets = Tensor::from<int64_t>(offsets);
    write_latent_shard(shard_path(folder_ / "latents", 1, 2), s, settings_);
    EXPECT_NE(
        test::refusal([&] { LatentFolder::open(folder_ / "latents"); }).find("do not go with their offsets"),
        std::string::npos);
  }
}

}  // namespace
}  // namespace linnet
