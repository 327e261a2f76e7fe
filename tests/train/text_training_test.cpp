// Training a model of texts on pictures: what its batches hold, its text encoder trained along or frozen, and
// the optimisers.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <utility>

#include "io/scenes.h"
#include "io/tokenizer.h"
#include "pipeline/text_encoding.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "support/compare.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path dumps = LINNET_TEST_DATA "/reference";

constexpr const char* small_model =
    "[model]\nkind='pixart'\nsample_size=16\npatch_size=4\nin_channels=3\nhidden_size=16\ndepth=1\nnum_heads="
    "1\n"
    "num_cross_heads=2\ncaption_channels=24\ncaption_tokens=20\nnull_caption=false\nprediction='x0'\n"
    "[train]\nbatch=8\nprecision='f32'\nlr=1e-2\nema=0.5\n";
constexpr const char* small_encoder = "[text]\nheads=2\nhidden=32\ndepth=1\n";

class TextTraining : public testing::Test {
 protected:
  TextTraining() {
    write_scenes(folder_ / "scenes", 40, 16, 1, SceneSet::training);
    const fs::path stored = dumps / "t5.model.safetensors";
    fs::create_directories(folder_ / "t5");
    fs::copy_file(stored, folder_ / "t5/model.safetensors");
    std::ofstream(folder_ / "t5/config.json") << SafetensorsFile::open(stored).metadata().at("config");
  }
  TrainConfig config(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> overrides = {"data.path=" + (folder_ / "scenes").string(),
                                          "text.tokenizer=" LINNET_TEST_DATA "/tokenizer/spiece.model"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return parse_train_config(std::string(small_model) + small_encoder, overrides);
  }
  std::string frozen(const char* name = "t5") const { return "text.encoder=" + (folder_ / name).string(); }
  // The same encoder in 8 bits.
  void write_encoder_in_8_bits(const char* name) const {
    const auto encoder = load_t5(folder_ / "t5");
    encoder->visit("", [](const std::string&, nn::Parameter& p) {
      if (p.block_matrix) nn::quantize(p);
    });
    fs::create_directories(folder_ / name);
    save_t5(folder_ / name, *encoder, DType::f32);
  }
  static std::vector<Tensor> weights_of(Trainer& trainer) {
    std::vector<Tensor> weights;
    for (const auto& [name, parameter] : nn::learned_parameters(trainer.model()))
      weights.push_back(parameter->value.clone());
    return weights;
  }
  // Steps on pieces and steps on the states that the encoder makes of them are the same.
  void expect_to_see_states_of(const char* encoder) const {
    const TrainConfig c = config({frozen(encoder)});
    const auto data = open_data(c);
    const auto alone = load_t5(folder_ / encoder);
    Trainer on_pieces(c, *data), on_states(c, *data);
    for (int64_t step = 0; step < 3; ++step) {
      Batch batch = data->batch(step);
      on_pieces.step(batch);
      batch.texts = encode_texts(*alone, std::exchange(batch.ids, {}));
      on_states.step(batch);
    }
    const auto expected = nn::learned_parameters(on_states.model()),
               found = nn::learned_parameters(on_pieces.model());
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_EQ(test::relative_error(found[i].second->value, expected[i].second->value), 0)
          << encoder << ", " << expected[i].first;
  }

  TemporaryFolder folder_;
};

TEST_F(TextTraining, ABatchHoldsThePiecesOfItsTexts) {
  const auto data = open_data(config({"text.dropout=0.0"}));
  const Batch batch = data->batch(2), again = data->batch(2);
  ASSERT_EQ(batch.ids.size(), 8u);
  EXPECT_EQ(batch.ids, again.ids);
  EXPECT_EQ(batch.texts.count(), 0);
  EXPECT_FALSE(batch.y.defined());
  std::set<std::vector<int64_t>> known;
  const auto tokenizer = Tokenizer::open(LINNET_TEST_DATA "/tokenizer/spiece.model");
  for (int64_t i = 0; i < 40; ++i)
    known.insert(tokenizer.ids(sentence(captioned_scene(1, i, SceneSet::training).description), 20).values);
  for (const auto& ids : batch.ids) EXPECT_TRUE(known.contains(ids));
}

TEST_F(TextTraining, TextsAreDroppedAtTheGivenRate) {
  const auto data = open_data(config({"text.dropout=0.25"}));
  size_t dropped = 0;
  for (int64_t step = 0; step < 60; ++step)
    for (const auto& ids : data->batch(step).ids) dropped += ids.size() == 1;  // the end alone
  EXPECT_NEAR(static_cast<double>(dropped) / 480, 0.25, 0.06);
}

TEST_F(TextTraining, AFrozenEncodersStatesAreMadeInTheStep) {
  EXPECT_EQ(open_data(config({frozen()}))->batch(1).ids, open_data(config())->batch(1).ids);
  write_encoder_in_8_bits("t5-8-bits");
  EXPECT_EQ(load_t5(folder_ / "t5-8-bits")->stored_dtype(), DType::i8);
  for (const char* encoder : {"t5", "t5-8-bits"}) expect_to_see_states_of(encoder);
}

TEST_F(TextTraining, AFrozenEncoderIsNoPartOfTheModel) {
  const TrainConfig c = config({frozen()});
  Trainer trainer(c, *open_data(c));
  for (const auto& [name, parameter] : nn::all_parameters(trainer.model()))
    EXPECT_FALSE(name.starts_with("text_encoder.")) << name;
  fs::create_directories(folder_ / "run");
  trainer.save_averaged(folder_ / "run");
  EXPECT_FALSE(fs::exists(folder_ / "run/text_encoder"));
}

TEST_F(TextTraining, AnEncoderThatDoesNotFitIsRefusedBeforeAnythingIsWritten) {
  T5Config few{.vocabulary = 10, .width = 24, .hidden = 32, .depth = 1, .heads = 2, .head_size = 12};
  T5Encoder knows_few(few);
  nn::initialize(knows_few, 1);
  fs::create_directories(folder_ / "few");
  save_t5(folder_ / "few", knows_few, DType::f32);
  for (const char* tune : {"text.tune=false", "text.tune=true"}) {
    const auto refused = [&](const char* sentence, const std::vector<std::string>& more) {
      std::vector<std::string> all = {tune, "output.dir=" + (folder_ / "run").string()};
      all.insert(all.end(), more.begin(), more.end());
      test::expect_refused(sentence, [&] { run_training(config(all), false, {}); });
      EXPECT_FALSE(fs::exists(folder_ / "run"));
    };
    refused("states are 24 wide, and the transformer takes 32", {frozen(), "model.caption_channels=32"});
    refused("the text encoder knows 10", {frozen("few")});
    refused("none", {frozen("none")});
  }
}

TEST_F(TextTraining, AnEncoderThatIsTrainedAlongLearnsAndIsSaved) {
  const TrainConfig c = config({"train.steps=30"});
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  std::map<std::string, Tensor> before;
  for (const auto& [name, parameter] : nn::learned_parameters(trainer.model()))
    before[name] = parameter->value.clone();
  const Batch batch = data->batch(0);
  const double first = trainer.step(batch).loss;
  double last = first;
  for (int i = 0; i < 29; ++i) last = trainer.step(batch).loss;
  EXPECT_LT(last, 0.8 * first);
  for (const auto& [name, parameter] : nn::learned_parameters(trainer.model()))
    if (name.starts_with("text_encoder.")) {
      EXPECT_GT(test::relative_error(parameter->value, before[name]), 1e-4) << name;
    }

  fs::create_directories(folder_ / "run");
  trainer.save_averaged(folder_ / "run");
  EXPECT_EQ(load_pixart(folder_ / "run/model.safetensors").model->config(), c.of_texts());
  const auto encoder = load_t5(folder_ / "run/text_encoder");
  const auto& averaged = dynamic_cast<TextTrainee&>(trainer.averaged());
  // One multiplies packed weights, the other does not: without AVX-512 their sums go in another order.
  EXPECT_LE(test::relative_error(encode_texts(*encoder, batch.ids).states,
                                 encode_texts(*averaged.encoder(), batch.ids).states),
            ops::have_bf16_products() ? 0.0 : 1e-6);
}

TEST_F(TextTraining, AnEncoderGoesOnFromWhereItWas) {
  const TrainConfig c = config({frozen(), "text.tune=true", "train.steps=8", "train.lr=1e-3", "train.warmup=0",
                                "output.dir=" + (folder_ / "run").string()});
  run_training(c, false, {});
  const auto before = load_t5(folder_ / "t5"), after = load_t5(folder_ / "run/text_encoder");
  EXPECT_EQ(after->config(), before->config());
  const nn::ParameterList old = nn::all_parameters(*before), tuned = nn::all_parameters(*after);
  ASSERT_EQ(old.size(), tuned.size());
  double furthest = 0;
  for (size_t i = 0; i < old.size(); ++i) {
    const double moved = test::relative_error(tuned[i].second->value, old[i].second->value);
    EXPECT_LT(moved, 0.05) << old[i].first;
    furthest = std::max(furthest, moved);
  }
  EXPECT_GT(furthest, 1e-6);
  EXPECT_THROW(config({"text.tune=true"}), UsageError);
}

TEST_F(TextTraining, AnEncoderInEightBitsGoesOnFromTheFloatsThatItStandsFor) {
  write_encoder_in_8_bits("t5-8-bits");
  const TrainConfig c = config({frozen("t5-8-bits"), "text.tune=true"});
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  trainer.start_from(*load_t5(folder_ / "t5-8-bits"));
  const Batch batch = data->batch(0);
  const auto states = [&](const T5Encoder& encoder) { return encode_texts(encoder, batch.ids).states; };
  EXPECT_LE(test::relative_error(states(*dynamic_cast<TextTrainee&>(trainer.model()).encoder()),
                                 states(*load_t5(folder_ / "t5-8-bits"))),
            1e-5);
  EXPECT_TRUE(std::isfinite(trainer.step(batch).loss));
}

// The published models' embedding of no text: training says "" instead.
TEST_F(TextTraining, WhatTheLossDoesNotDependOnDoesNotDecay) {
  for (const std::string optimizer : {"adamw", "came", "muon"}) {
    const TrainConfig c =
        config({"train.optimizer=" + optimizer, "train.weight_decay=0.5", "model.null_caption=true"});
    const auto data = open_data(c);
    Trainer trainer(c, *data);
    const nn::ParameterList list = nn::learned_parameters(trainer.model());
    const auto unused = std::ranges::find_if(
        list, [](const auto& entry) { return entry.first.ends_with("y_embedder.y_embedding"); });
    ASSERT_NE(unused, list.end());
    const Tensor before = unused->second->value.clone();
    trainer.step(data->batch(0));
    EXPECT_EQ(test::relative_error(unused->second->value, before), 0) << optimizer;
  }
}

// Also in parts: what a batch's texts are must be cut as its pictures are.
TEST_F(TextTraining, InPartsItIsTheSame) {
  for (const std::string& encoder : {std::string("text.encoder="), frozen()}) {
    const TrainConfig whole = config({encoder}), parts = config({encoder, "train.accumulate=4"});
    const auto data = open_data(whole);
    Trainer one(whole, *data), four(parts, *data);
    const Batch batch = data->batch(0);
    EXPECT_NEAR(one.step(batch).loss, four.step(batch).loss, 1e-5);
    EXPECT_NEAR(one.step(batch).loss, four.step(batch).loss, 1e-4);
  }
}

TEST_F(TextTraining, GoesOnFromACheckpointAsIfItHadNotStopped) {
  for (const std::string& how : {std::string("train.optimizer=adamw"), std::string("train.optimizer=came"),
                                 std::string("train.optimizer=muon"), frozen()}) {
    const TrainConfig c = config({how, "train.lr=1e-3"});
    const auto data = open_data(c);
    Trainer straight(c, *data), first(c, *data), second(c, *data);
    for (int64_t i = 0; i < 4; ++i) straight.step(data->batch(i));
    for (int64_t i = 0; i < 2; ++i) first.step(data->batch(i));
    first.save_checkpoint(folder_ / "c.safetensors");
    second.load_checkpoint(folder_ / "c.safetensors");
    for (int64_t i = 2; i < 4; ++i) second.step(data->batch(i));
    const auto expected = nn::learned_parameters(straight.model()),
               found = nn::learned_parameters(second.model());
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_EQ(test::relative_error(found[i].second->value, expected[i].second->value), 0)
          << how << ", " << expected[i].first;
  }
}

// Or what was learned of the text encoder would be gone without a word.
TEST_F(TextTraining, ACheckpointThatHoldsMoreThanTheRunIsRefused) {
  const auto save = [&](const std::vector<std::string>& how) {
    const TrainConfig c = config(how);
    Trainer(c, *open_data(c)).save_checkpoint(folder_ / "c.safetensors");
  };
  const auto refused = [&](const std::vector<std::string>& how) {
    const TrainConfig c = config(how);
    Trainer trainer(c, *open_data(c));
    const std::vector<Tensor> before = weights_of(trainer);
    test::expect_refused("\" is no part of this run",
                         [&] { trainer.load_checkpoint(folder_ / "c.safetensors"); });
    const std::vector<Tensor> after = weights_of(trainer);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(test::relative_error(after[i], before[i]), 0);
  };
  save({"text.depth=2", "train.seed=1"});
  refused({"text.depth=1"});
  refused({frozen()});
  save({frozen(), "text.tune=true", "train.seed=1"});
  refused({frozen()});
}

// The momentum alone is kept of what Muon moves.
TEST_F(TextTraining, MuonIsForTheMatricesInsideBlocks) {
  const TrainConfig c = config({"train.optimizer=muon"});
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  trainer.save_checkpoint(folder_ / "c.safetensors");
  const auto file = SafetensorsFile::open(folder_ / "c.safetensors");
  for (const char* name : {"blocks.0.mlp.fc1.weight", "blocks.0.cross_attn.q_linear.weight",
                           "text_encoder.encoder.block.0.layer.0.SelfAttention.q.weight"}) {
    EXPECT_TRUE(file.contains(std::string("mean.") + name)) << name;
    EXPECT_FALSE(file.contains(std::string("square.") + name)) << name;
  }
  for (const char* name : {"t_block.1.weight", "blocks.0.scale_shift_table", "blocks.0.mlp.fc1.bias",
                           "x_embedder.proj.weight", "text_encoder.shared.weight",
                           "text_encoder.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"})
    EXPECT_TRUE(file.contains(std::string("square.") + name)) << name;
}

TEST_F(TextTraining, CameBringsTheLossDown) {
  const TrainConfig c = config({"train.optimizer=came", "train.lr=3e-3"});
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  const Batch batch = data->batch(0);
  const double first = trainer.step(batch).loss;
  double last = first;
  for (int i = 0; i < 40; ++i) last = trainer.step(batch).loss;
  EXPECT_LT(last, 0.8 * first);
}

TEST_F(TextTraining, AStudentLearnsFromATeacherThatSeesTheSameTexts) {
  TrainConfig c = config({frozen(), "train.lr=1e-3"});
  c.distil.noise = 20;
  const auto data = open_data(c);
  auto teacher = std::make_shared<PixArt>(c.of_texts());
  nn::initialize(*teacher, 9);
  teacher->visit("", [](const std::string& name, nn::Parameter& p) {
    if (name.starts_with("final_layer.linear.w")) p.value = Generator(4).normal(p.shape);
  });
  Trainer trainer(c, *data);
  trainer.learn_from(std::make_shared<TextTrainee>(teacher, nullptr));
  const Batch batch = data->batch(0);
  const double before = trainer.step(batch).noise_distance;
  double after = before;
  for (int i = 0; i < 60; ++i) after = trainer.step(batch).noise_distance;
  EXPECT_LT(after, 0.7 * before);
}

// As the model of 1024 pixels starts from that of 512.
TEST_F(TextTraining, AModelOfLargerPicturesStartsFromOneOfSmaller) {
  PixArt small(config().of_texts());
  nn::initialize(small, 3);
  save_pixart(folder_ / "small.safetensors", small, DType::f32);
  const std::string init = "train.init=" + (folder_ / "small.safetensors").string();
  const TrainConfig c = config({init, "model.sample_size=32", "model.interpolation=2.0"});
  EXPECT_EQ(c.of_texts().sample_size, 32);
  const auto data = open_data(c);
  Trainer trainer(c, *data);
  trainer.start_from(*load_trainee(c.train.init, c.model));
  EXPECT_NE(test::refusal([&] {
              config({init, "model.hidden_size=32"});
            }).find("model.hidden_size is 32, but 16 in"),
            std::string::npos);
}

TEST_F(TextTraining, PositionsOfANewModelAreThoseOfItsSize) {
  EXPECT_EQ(config({"model.caption_tokens=300"}).of_texts().interpolation, 0.5);
  EXPECT_EQ(config({"model.sample_size=64"}).of_texts().interpolation, 1);
  EXPECT_EQ(config({"model.sample_size=128"}).of_texts().interpolation, 2);
  EXPECT_EQ(config({"model.sample_size=64", "model.interpolation=3.0"}).of_texts().interpolation, 3);
}

TEST_F(TextTraining, WhatDoesNotGoTogetherIsRefused) {
  const auto refusal = [&](const std::vector<std::string>& more) {
    return test::refusal([&] { open_data(config(more)); });
  };
  EXPECT_NE(refusal({"model.in_channels=4"}).find("linnet encode --captions"), std::string::npos);
  EXPECT_NE(refusal({"text.tokenizer="}).find("needs text.tokenizer"), std::string::npos);
  EXPECT_NE(refusal({"distil.teacher=t"}).find("give text.encoder"), std::string::npos);
  EXPECT_NE(test::refusal([&] { make_trainee(config({"text.heads=5"})); }).find("text.heads must divide"),
            std::string::npos);
  fs::remove(folder_ / "scenes/captions.jsonl");
  EXPECT_NE(refusal({}).find("no pictures with texts"), std::string::npos);
}

}  // namespace
}  // namespace linnet
