#include "train/data.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "io/image.h"
#include "io/latents.h"
#include "io/picture_set.h"
#include "io/resize.h"
#include "io/shapes.h"
#include "io/tokenizer.h"
#include "store/transformer_file.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

class FolderData : public testing::Test {
 protected:
  FolderData() { write_data_set(folder.path() / "shapes", 128, 16, 1); }
  TrainConfig config(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> settings = {"data.path=" + (folder.path() / "shapes").string()};
    settings.insert(settings.end(), more.begin(), more.end());
    return parse_train_config(
        "[model]\ninput_size=16\npatch_size=4\nin_channels=3\nhidden_size=16\ndepth=1\nnum_heads=1\n"
        "num_classes=64\n[train]\nbatch=32\n",
        settings);
  }
  TemporaryFolder folder;
};

bool equal(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST_F(FolderData, ABatchIsAFunctionOfTheStep) {
  const auto data = open_data(config());
  const Batch later = data->batch(5), first = data->batch(0), again = data->batch(5);
  EXPECT_TRUE(equal(later.x0, again.x0) && equal(later.noise, again.noise) && equal(later.t, again.t) &&
              equal(later.y, again.y));
  EXPECT_FALSE(equal(later.noise, first.noise));
}

// What each of several processes takes, laid together, is what one alone takes.
void expect_shared_out(const TrainConfig& config, int processes) {
  const int64_t each = config.train.batch / processes;
  for (const int64_t step : {0, 3}) {
    const Batch whole = open_data(config)->batch(step);
    for (int i = 0; i < processes; ++i) {
      const Batch wanted = part_of(whole, i * each, (i + 1) * each),
                  part = open_data(config, {i, processes})->batch(step);
      EXPECT_TRUE(equal(part.x0, wanted.x0) && equal(part.noise, wanted.noise) && equal(part.t, wanted.t) &&
                  equal(part.y, wanted.y))
          << "process " << i << ", step " << step;
    }
  }
}

TEST_F(FolderData, ProcessesShareABatch) {
  expect_shared_out(config(), 4);
  expect_shared_out(config({"data.flip=true", "train.timesteps=logit_normal"}), 2);
}

TEST_F(FolderData, ABatchThatCannotBeSharedIsRefused) {
  test::expect_refused("a batch of 32 cannot be shared by 3 processes", [&] { open_data(config(), {0, 3}); });
  test::expect_refused("by 4 processes that gather it in 16 parts", [&] {
    open_data(config({"train.accumulate=16"}), {0, 4});
  });
}

TEST_F(FolderData, AnEpochShowsEveryPictureOnce) {
  const auto data = open_data(config({"model.class_dropout=0.0"}));
  std::multiset<int64_t> seen;
  for (int64_t step = 0; step < 4; ++step) {
    const Tensor labels = data->batch(step).y;
    for (const int64_t label : labels.values<int64_t>()) seen.insert(label);
  }
  for (int64_t label = 0; label < 64; ++label) EXPECT_EQ(seen.count(label), 2u) << label;
}

TEST_F(FolderData, EveryEpochHasAnOrderOfItsOwn) {
  const auto data = open_data(config({"model.class_dropout=0.0"}));
  for (int64_t step = 0; step < 4; ++step)
    EXPECT_FALSE(equal(data->batch(step).y, data->batch(step + 4).y)) << step;
}

TEST_F(FolderData, AnotherSeedDrawsAllOtherwise) {
  const std::string keep_classes = "model.class_dropout=0.0";
  const Batch one = open_data(config({keep_classes, "train.seed=1"}))->batch(0),
              other = open_data(config({keep_classes, "train.seed=2"}))->batch(0);
  EXPECT_FALSE(equal(one.y, other.y));
  EXPECT_FALSE(equal(one.noise, other.noise));
  EXPECT_FALSE(equal(one.t, other.t));
}

// Some pictures of a batch, and not all: each is mirrored by a draw of its own.
TEST_F(FolderData, AboutHalfOfABatchIsMirrored) {
  const Tensor plain = open_data(config())->batch(0).x0,
               mixed = open_data(config({"data.flip=true"}))->batch(0).x0;
  int mirrored = 0;
  for (int64_t i = 0; i < 32; ++i) {
    bool same = true, turned = true;
    for (int64_t at = 0; at < 3 * 16 * 16; ++at) {
      const float value = mixed.data<float>()[i * 768 + at];
      same = same && value == plain.data<float>()[i * 768 + at];
      turned = turned && value == plain.data<float>()[i * 768 + at / 16 * 16 + 15 - at % 16];
    }
    EXPECT_TRUE(same || turned) << i;
    mirrored += turned;
  }
  EXPECT_NEAR(mirrored, 16, 8);
}

TEST_F(FolderData, ClassesAreDroppedAtTheGivenRate) {
  const auto data = open_data(config({"model.class_dropout=0.25"}));
  int64_t dropped = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const Tensor labels = data->batch(step).y;
    for (const int64_t label : labels.values<int64_t>()) dropped += label == 64;
  }
  EXPECT_NEAR(static_cast<double>(dropped) / (40 * 32), 0.25, 0.05);
}

TEST_F(FolderData, TimestepsAreUniformOrLogitNormal) {
  const auto mean = [](const BatchSource& data) {
    double sum = 0;
    for (int64_t step = 0; step < 40; ++step) {
      const Tensor timesteps = data.batch(step).t;
      for (const int64_t t : timesteps.values<int64_t>()) sum += static_cast<double>(t);
    }
    return sum / (40 * 32);
  };
  EXPECT_NEAR(mean(*open_data(config())), 499.5, 30);
  // E σ(N(−1, 0.5)) = 0.28
  EXPECT_NEAR(mean(*open_data(config({"train.timesteps=logit_normal", "train.timesteps_mean=-1.0",
                                      "train.timesteps_deviation=0.5"}))),
              280, 15);
}

TEST_F(FolderData, LargerPicturesAreCroppedAsAdmDoesIt) {
  write_data_set(folder.path() / "large", 64, 40, 1);  // one of each class
  const auto data = open_data(
      config({"data.path=" + (folder.path() / "large").string(), "train.batch=8", "model.class_dropout=0.0"}));
  const Batch batch = data->batch(0);
  for (int64_t i = 0; i < 8; ++i) {
    const auto label = static_cast<size_t>(batch.y.data<int64_t>()[i]);
    const auto path = pictures_below(folder.path() / "large" / data->class_names()[label]).front();
    const Image cropped = center_crop(read_image(path), 16);
    EXPECT_TRUE(equal(batch.x0.rows(i, i + 1), to_tensor({&cropped, 1}))) << path;
  }
}

TEST_F(FolderData, APictureThatCannotBeScaledIsNamed) {
  const auto path = folder.path() / "shapes/red-star/thin.png";
  write_image(path, {3000, 1, std::vector<uint8_t>(9000)});
  const auto data = open_data(config());
  const std::string sentence = test::refusal([&] {
    for (int64_t step = 0; step < 5; ++step) data->batch(step);
  });
  EXPECT_EQ(sentence, path.string() + ": a picture cannot be resized to 48000 x 16 pixels");
}

TEST_F(FolderData, ClassesAreNamedByTheirFolders) {
  const auto names = open_data(config())->class_names();
  ASSERT_EQ(names.size(), 64u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
}

TEST_F(FolderData, RefusesAModelForOtherClasses) {
  EXPECT_THROW(open_data(config({"model.num_classes=10"})), Error);
}
TEST_F(FolderData, SaysWhatMakesLatents) {
  try {
    open_data(config({"model.in_channels=4"}));
    FAIL() << "pictures were taken for latents";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("latents of 4: let `linnet encode` make them"), std::string::npos)
        << error.what();
  }
}
TEST_F(FolderData, RefusesAMissingFolder) { EXPECT_THROW(open_data(config({"data.path=/nowhere"})), Error); }

TEST_F(FolderData, RefusesAClassWhoseNameIsNotUtf8) {
  std::filesystem::create_directory(folder.path() / "shapes" / "z\xff");
  test::expect_refused("/z\\xff: this folder's name, which names a class, is not UTF-8",
                       [&] { open_data(config()); });
}

constexpr const char* text_model =
    "[model]\nkind='pixart'\nsample_size=16\npatch_size=4\nin_channels=3\nhidden_size=16\ndepth=1\n"
    "num_heads=1\nnum_cross_heads=2\ncaption_channels=24\ncaption_tokens=20\nnull_caption=false\n"
    "[train]\nbatch=2\nprecision='f32'\n[text]\nheads=2\nhidden=32\ndepth=1\n";
constexpr const char* text_tokenizer = "text.tokenizer=" LINNET_TEST_DATA "/tokenizer/spiece.model";

// They would be refused when their turn comes, hours later, and not by name.
TEST(TextFolderData, RefusesATextThatIsNotUtf8OrTooLong) {
  const TemporaryFolder folder;
  for (const char* name : {"1.png", "2.png"}) std::ofstream(folder / name) << "a picture";
  std::ofstream(folder / "1.txt") << "ein Bär";
  std::ofstream(folder / "2.txt") << "ein B\xe4r";
  const TrainConfig config =
      parse_train_config(text_model, {"data.path=" + folder.path().string(), text_tokenizer});
  test::expect_refused("2.png: its text is not UTF-8", [&] { open_data(config); });
  std::ofstream(folder / "2.txt") << std::string(65537, 'a');
  test::expect_refused("2.png: its text has 65537 bytes", [&] { open_data(config); });
}

// As prompts are, unless they are told otherwise.
TEST(TextFolderData, TextsAreLoweredAndStripped) {
  const TemporaryFolder folder;
  for (const char* name : {"1", "2"}) {
    write_image(folder / (std::string(name) + ".png"), blank_image(16, 16, 1, 2, 3));
    std::ofstream(folder / (std::string(name) + ".txt")) << " A Red STAR\n";
  }
  const TrainConfig config = parse_train_config(
      text_model, {"data.path=" + folder.path().string(), text_tokenizer, "text.dropout=0.0"});
  const auto expected = Tokenizer::open(LINNET_TEST_DATA "/tokenizer").ids("a red star", 20).values;
  for (const auto& ids : open_data(config)->batch(0).ids) EXPECT_EQ(ids, expected);
}

TEST_F(FolderData, ABrokenPictureIsNamed) {
  const auto broken = folder.path() / "shapes" / "red-star" / "broken.png";
  std::fclose(std::fopen(broken.c_str(), "w"));
  const auto data = open_data(config());
  Prefetcher batches(*data, 0, 1);
  try {
    for (int i = 0; i < 8; ++i) batches.next();
    FAIL() << "the broken picture went unnoticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("broken.png"), std::string::npos);
  }
}

TEST(ReplayData, BeginsAgainAfterItsLastStep) {
  TrainConfig config;
  config.data.replay = LINNET_TEST_DATA "/reference/training.lit.safetensors";  // of ten steps
  config.model = read_model_config(Weights::open(LINNET_TEST_DATA "/reference/training.lit.model.safetensors"));
  config.train.batch = 3;
  const auto data = open_data(config);
  EXPECT_TRUE(equal(data->batch(13).x0, data->batch(3).x0));
  EXPECT_FALSE(equal(data->batch(13).x0, data->batch(9).x0));
}

// Five pictures in two shards; every number of picture i's mean is i, of its mirror −i.
class LatentData : public testing::Test {
 protected:
  explicit LatentData(float logvar = -100) {
    std::filesystem::create_directories(folder / "latents");
    settings.flipped = true;
    settings.shards = 2;
    settings.scaling_factor = 0.5;
    settings.shift_factor = 1;
    write(0, {0, 1, 2}, logvar);
    write(1, {3, 4}, logvar);
  }
  void write(int64_t shard, const std::vector<float>& pictures, float logvar) {
    const auto n = static_cast<int64_t>(pictures.size());
    Tensor mean = Tensor::empty({n, 2, 4, 4}), mirrored = Tensor::empty({n, 2, 4, 4});
    std::vector<int64_t> labels;
    for (int64_t i = 0; i < mean.numel(); ++i) {
      mean.mutable_data<float>()[i] = pictures[static_cast<size_t>(i / 32)];
      mirrored.mutable_data<float>()[i] = -pictures[static_cast<size_t>(i / 32)];
    }
    for (const float picture : pictures) labels.push_back(static_cast<int64_t>(picture));
    const Tensor spread = Tensor::full({n, 2, 4, 4}, logvar).to(DType::f16);
    write_latent_shard(shard_path(folder / "latents", shard, 2),
                       {.groups = {{mean.to(DType::f16), spread, mirrored.to(DType::f16), spread}},
                        .labels = Tensor::from<int64_t>(labels),
                        .class_names = {"a", "b", "c", "d", "e"}},
                       settings);
  }
  TrainConfig config(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> overrides = {"data.path=" + (folder / "latents").string()};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return parse_train_config(
        "[model]\ninput_size=4\npatch_size=2\nin_channels=2\nhidden_size=16\ndepth=1\nnum_heads=1\n"
        "num_classes=5\nclass_dropout=0.0\n[train]\nbatch=5\n",
        overrides);
  }
  TemporaryFolder folder;
  LatentSettings settings;
};

TEST_F(LatentData, AnEpochShowsEveryPictureOnceAsDiffusionTakesThem) {
  const auto data = open_data(config());
  EXPECT_EQ(data->class_names().at(4), "e");
  std::set<int64_t> seen;
  const Batch batch = data->batch(7);
  for (int64_t i = 0; i < 5; ++i) {
    const int64_t label = batch.y.data<int64_t>()[i];
    seen.insert(label);
    for (int64_t j = 0; j < 32; ++j)
      EXPECT_NEAR(batch.x0.data<float>()[i * 32 + j], (static_cast<float>(label) - 1) * 0.5f, 1e-6);
  }
  EXPECT_EQ(seen.size(), 5u);
}

TEST_F(LatentData, TimestepsAreDrawnOfAllThousand) {
  const Batch batch = open_data(config({"train.batch=20000"}))->batch(0);
  const auto [first, last] = std::ranges::minmax(batch.t.values<int64_t>());
  EXPECT_EQ(first, 0);
  EXPECT_EQ(last, 999);
}

TEST_F(LatentData, MirrorsAreTakenHalfOfTheTime) {
  const auto data = open_data(config({"data.flip=true"}));
  int mirrored = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const Batch batch = data->batch(step);
    for (int64_t i = 0; i < 5; ++i) mirrored += batch.x0.data<float>()[i * 32] < -0.75f;  // of 1..4: (−i − 1)/2
  }
  EXPECT_NEAR(mirrored, 40 * 4 / 2, 25);
}

TEST_F(LatentData, RefusesWhatDoesNotGoTogether) {
  const auto refused = [&](const std::vector<std::string>& more) {
    return test::refusal([&] { (void)open_data(config(more)); });
  };
  EXPECT_NE(refused({"model.in_channels=3"}).find("its latents have shape (2, 4, 4)"), std::string::npos);
  EXPECT_NE(refused({"model.num_classes=4"}).find("it holds class 4"), std::string::npos);
  EXPECT_NE(refused({"model.num_classes=6"}).find("holds 5 classes"), std::string::npos);
  settings.size = 512;
  write(1, {3, 4}, 0);
  EXPECT_NE(refused({}).find("it was encoded otherwise"), std::string::npos) << refused({});
  std::filesystem::remove(shard_path(folder / "latents", 1, 2));
  EXPECT_NE(refused({}).find("shard 1 of 2 is missing"), std::string::npos) << refused({});
}

TEST_F(LatentData, WithoutMirrorsNoneAreDrawn) {
  settings.flipped = false;
  write(0, {0, 1, 2}, 0);
  write(1, {3, 4}, 0);
  EXPECT_EQ(test::refusal([&] { (void)open_data(config()); }), "accepted");
  EXPECT_NE(test::refusal([&] { (void)open_data(config({"data.flip=true"})); }).find("encode with --flip"),
            std::string::npos);
}

TEST_F(LatentData, ProcessesShareABatch) { expect_shared_out(config({"train.batch=4"}), 2); }

class WideLatentData : public LatentData {
 protected:
  WideLatentData() : LatentData(2 * std::log(3.0f)) {}
};

TEST_F(WideLatentData, LatentsAreDrawnAnewEachTime) {
  const auto data = open_data(config());
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (int64_t step = 0; step < 60; ++step) {
    const Batch batch = data->batch(step);
    for (int64_t i = 0; i < batch.x0.numel(); ++i, ++count) {
      const double own = (static_cast<double>(batch.y.data<int64_t>()[i / 32]) - 1) * 0.5;
      const double deviation = static_cast<double>(batch.x0.data<float>()[i]) - own;
      sum += deviation;
      squares += deviation * deviation;
    }
  }
  EXPECT_NEAR(sum / static_cast<double>(count), 0, 0.05);
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(count)), 1.5, 0.05);  // e^(logvar/2)·scaling
  EXPECT_TRUE(equal(data->batch(3).x0, open_data(config())->batch(3).x0));
}

TEST_F(FolderData, ThePrefetcherKeepsTheOrder) {
  const auto data = open_data(config()), again = open_data(config());
  Prefetcher batches(*data, 3, 2);
  for (int64_t step = 3; step < 9; ++step) EXPECT_TRUE(equal(batches.next().noise, again->batch(step).noise));
}

}  // namespace
}  // namespace linnet
