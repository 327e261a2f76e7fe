// A run on texts on the GPU against the same run on the CPU, with a text encoder that is trained along and with
// a frozen one.
#include "gpu/training.h"
#include "io/latents.h"
#include "io/safetensors.h"
#include "io/tokenizer.h"
#include "pipeline/text_encoding.h"
#include "store/t5_file.h"
#include "support/processor.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;
using test::config_of;
using test::DrawnTrainer;
using test::expect_alike;
using test::Ways;

class RandomTexts : public test::RandomData {
 public:
  Batch batch(int64_t step) const override {
    Batch batch = test::RandomData::batch(step);
    batch.y = {};
    batch.ids = {{3, 4, 5, 1}, {1}, {7, 3, 6, 2, 9, 1}, {4 + step, 3, 1}};
    return batch;
  }
};

constexpr const char* tokenizer = LINNET_TEST_DATA "/tokenizer/spiece.model";
// An encoder that is trained along.
constexpr const char* own = "heads = 2\nhidden = 32\n";

// `text` says more about its encoder.
TrainConfig config_on(const std::string& device, const std::string& text, const Ways& ways = {}) {
  return config_of(fmt::format(R"(
[text]
tokenizer = '{}'
{}
[model]
kind = 'pixart'
sample_size = 8
patch_size = 2
in_channels = 3
hidden_size = 32
depth = 2
num_heads = 2
num_cross_heads = 2
caption_channels = 32
caption_tokens = 8
learn_sigma = false
)",
                               tokenizer, text),
                   device, ways);
}

// An encoder for config_on, its matrices in f32 or in 8 bits.
void write_encoder(const std::filesystem::path& folder, DType dtype) {
  T5Encoder encoder({.vocabulary = Tokenizer::open(tokenizer).size(),
                     .width = 32,
                     .hidden = 64,
                     .depth = 2,
                     .heads = 2,
                     .head_size = 16});
  nn::initialize(encoder, 11);
  encoder.visit("", [&](const std::string&, nn::Parameter& p) {
    if (dtype == DType::i8 && p.block_matrix) nn::quantize(p);
  });
  std::filesystem::create_directories(folder);
  save_t5(folder, encoder, DType::f32);
}

// Counts how often the CPU waits for the GPU: for something to come back, or for all to be done.
class Waits {
 public:
  Waits() : api_(const_cast<GpuApi&>(gpu())) {
    count_ = 0;
    real_ = api_;
    api_.download = [](void* to, const void* from, size_t bytes) {
      ++count_;
      real_.download(to, from, bytes);
    };
    api_.synchronize = [] {
      ++count_;
      real_.synchronize();
    };
  }
  ~Waits() { api_ = real_; }
  Waits(const Waits&) = delete;
  Waits& operator=(const Waits&) = delete;
  int count() const { return count_; }

 private:
  static inline int count_ = 0;
  static inline GpuApi real_{};
  GpuApi& api_;
};

TEST(GpuTextTraining, ATextEncoderIsTrainedAlong) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  DrawnTrainer here(config_on("cpu", own), data), there(config_on("cuda", own), data);
  expect_alike(5, data, here, there);
}

TEST(GpuTextTraining, ATextEncoderIsTrainedAlongInBf16) {
  LINNET_NEED_GPU();
  LINNET_NEED_BF16_PRODUCTS();
  const RandomTexts data;
  for (const Ways& ways : {Ways{"", "bf16"}, Ways{"checkpointing = true", "bf16", "softmax"}}) {
    DrawnTrainer here(config_on("cpu", own, ways), data), there(config_on("cuda", own, ways), data);
    expect_alike(2, data, here, there, ways.precision);
  }
}

TEST(GpuTextTraining, AFrozenTextEncoderWorksOnTheDeviceOfTheRun) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  for (const DType dtype : {DType::f32, DType::i8}) {
    SCOPED_TRACE(name_of(dtype));
    const TemporaryFolder folder;
    write_encoder(folder / "t5", dtype);
    const std::string text = fmt::format("encoder = '{}'\n", (folder / "t5").string());
    const TrainConfig on_cpu = config_on("cpu", text, {"accumulate = 2"}),
                      on_gpu = config_on("cuda", text, {"accumulate = 2"});
    DrawnTrainer here(on_cpu, data), there(on_gpu, data);
    here.learn_from(test::teacher_for(on_cpu));
    there.learn_from(test::teacher_for(on_cpu));
    expect_alike(4, data, here, there);
    const TextStates expected = encode_texts(*here.frozen_encoder(), data.batch(0).ids),
                     actual = encode_texts(*there.frozen_encoder(), data.batch(0).ids);
    ASSERT_TRUE(actual.states.on_gpu());
    EXPECT_LT(relative_error(actual.states.host(), values_of(expected.states)), 1e-4);
    const Waits waits;
    there.begin_step(data.batch(4));
    EXPECT_EQ(waits.count(), 0);
  }
}

// Which bring their texts' states.
TEST(GpuTextTraining, WithLatentsAFrozenTextEncoderLeavesTheMemoryOfTheGpuToTheTraining) {
  LINNET_NEED_GPU();
  const RandomTexts data;
  const TemporaryFolder folder;
  write_encoder(folder / "t5", DType::f32);
  TrainConfig config = config_on("cuda", fmt::format("encoder = '{}'\n", (folder / "t5").string()));
  write_safetensors(shard_path(folder.path(), 0, 1), NamedTensors{});
  config.data.path = folder.path().string();
  const Trainer trainer(config, data);
  EXPECT_FALSE(encode_texts(*trainer.frozen_encoder(), data.batch(0).ids).states.on_gpu());
}

}  // namespace
}  // namespace linnet
