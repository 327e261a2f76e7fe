// Whole models on the GPU, from words and classes to samples, against the same on the CPU.
#include "gpu/models.h"
#include "models/t5.h"
#include "pipeline/generate.h"
#include "pipeline/paint_text.h"
#include "pipeline/text_encoding.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

using ops::test::random;
using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

template <class Module>
void fill(Module& module) {
  test::draw_all(module);
  nn::freeze(module);
}

// What the options say, watched: every step's tensors lie on that device.
GenerateOptions watched(GenerateOptions options, const Device& device) {
  options.device = device;
  options.on_step = [device](const SamplingStep& step) {
    EXPECT_EQ(step.x.device(), device);
    EXPECT_EQ(step.x0.device(), device);
  };
  return options;
}

TEST(GpuGeneration, FromClassesIsThatOfTheCpu) {
  LINNET_NEED_GPU();
  const std::tuple<nn::Mixer, Prediction, Sampler> rows[] = {
      {nn::Mixer::softmax, Prediction::epsilon, Sampler::ddim},
      {nn::Mixer::lit, Prediction::v, Sampler::dpmpp},
      {nn::Mixer::lit, Prediction::epsilon, Sampler::ddpm}};
  for (const auto& [mixer, kind, sampler] : rows) {
    SCOPED_TRACE(fmt::format("{} {} {}", nn::name_of(mixer), name_of(kind), name_of(sampler)));
    DiTConfig config = test::tiny_dit();
    config.mixer = mixer;
    config.prediction = kind;
    DiT here(config), there(config);
    fill(here);
    fill(there);
    nn::move_to(there, the_gpu);
    const GenerateOptions options{.sampler = sampler, .steps = 3};
    const Tensor expected = generate(here, {0, 2}, {5, 6}, watched(options, {}));
    const Tensor samples = generate(there, {0, 2}, {5, 6}, watched(options, the_gpu));
    ASSERT_TRUE(samples.on_gpu());
    EXPECT_LT(relative_error(samples.host(), values_of(expected)), 1e-3);
  }
}

TEST(GpuGeneration, FromTextsIsThatOfTheCpu) {
  LINNET_NEED_GPU();
  PixArtConfig config;
  config.sample_size = 8, config.hidden_size = 24, config.depth = 2, config.num_heads = 2;
  config.num_cross_heads = 2, config.caption_channels = 16, config.caption_tokens = 6;
  for (const bool micro : {false, true}) {
    config.micro_conditions = micro;
    config.mixer = micro ? nn::Mixer::softmax : nn::Mixer::lit;
    PixArt here(config), there(config);
    fill(here);
    fill(there);
    nn::move_to(there, the_gpu);
    TextPaintRequest request;
    request.texts = {random({4, 16}, 1), random({6, 16}, 2)};
    request.height = 6, request.width = 8, request.count = 2;
    request.options = watched({.sampler = Sampler::dpmpp, .steps = 3, .clip_x0 = false}, {});
    const Tensor expected = paint_batch(here, request, 0, 2);
    request.options = watched(request.options, the_gpu);
    const Tensor samples = paint_batch(there, request, 0, 2);
    ASSERT_TRUE(samples.on_gpu());
    EXPECT_LT(relative_error(samples.host(), values_of(expected)), 1e-3) << (micro ? "micro" : "plain");
  }
}

TEST(GpuGeneration, TextsAreEncodedAsOnTheCpu) {
  LINNET_NEED_GPU();
  T5Config config;
  config.vocabulary = 50, config.width = 16, config.hidden = 24, config.depth = 2, config.heads = 2;
  config.head_size = 8;
  T5Encoder here(config), there(config);
  fill(here);
  fill(there);
  nn::move_to(there, the_gpu);
  const std::vector<std::vector<int64_t>> ids{{3, 7, 1}, {9, 1}, {5, 4, 3, 2, 11, 49, 1}};
  const std::vector<Tensor> expected = encode_each(here, ids), states = encode_each(there, ids);
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_LT(relative_error(states[i], values_of(expected[i])), 1e-4);
}

}  // namespace
}  // namespace linnet
