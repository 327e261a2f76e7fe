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

// What products are in on the GPU, and what samples may then differ from the CPU's in f32.
const std::pair<const char*, double> all_types[] = {
    {"f32", 1e-3}, {"tf32", 1e-2}, {"bf16", 3e-2}, {"f16", 1e-2}, {"int8", 3e-2}};

// By the name that --dtype takes. tf32 is of the whole process, and ends with the test.
template <class Model>
void put_on_gpu(Model& model, const char* products) {
  model.set_product_dtype(ops::product_dtype_from_name(products, the_gpu));
  nn::move_to(model, the_gpu);
}

class GpuGeneration : public testing::Test {
 protected:
  void TearDown() override { ops::set_tf32(false); }
};

struct ClassRow {
  nn::Mixer mixer;
  Prediction prediction = Prediction::epsilon;
  Sampler sampler = Sampler::ddim;
};

void check_classes(const ClassRow& row, const char* products, double tolerance) {
  SCOPED_TRACE(fmt::format("{} {} {} {}", nn::name_of(row.mixer), name_of(row.prediction), name_of(row.sampler),
                           products));
  DiTConfig config = test::tiny_dit();
  config.mixer = row.mixer;
  config.prediction = row.prediction;
  DiT here(config), there(config);
  fill(here);
  fill(there);
  put_on_gpu(there, products);
  const GenerateOptions options{.sampler = row.sampler, .steps = 3};
  const Tensor expected = generate(here, {0, 2}, {5, 6}, watched(options, {}));
  const Tensor samples = generate(there, {0, 2}, {5, 6}, watched(options, the_gpu));
  ASSERT_TRUE(samples.on_gpu());
  EXPECT_LT(relative_error(samples.host(), values_of(expected)), tolerance);
}

TEST_F(GpuGeneration, FromClassesIsThatOfTheCpu) {
  LINNET_NEED_GPU();
  const ClassRow rows[] = {{nn::Mixer::softmax},
                           {nn::Mixer::linear},
                           {nn::Mixer::lit, Prediction::v, Sampler::dpmpp},
                           {nn::Mixer::lit, Prediction::epsilon, Sampler::ddpm},
                           {nn::Mixer::focused},
                           {nn::Mixer::focused_gelu}};
  for (const ClassRow& row : rows) check_classes(row, "f32", 1e-3);
}

TEST_F(GpuGeneration, FromClassesInEveryTypeIsNearThatOfTheCpuInF32) {
  LINNET_NEED_GPU();
  for (const auto& [products, tolerance] : all_types)
    for (const nn::Mixer mixer : {nn::Mixer::softmax, nn::Mixer::linear, nn::Mixer::lit, nn::Mixer::focused})
      check_classes({mixer}, products, tolerance);
}

void check_texts(const PixArtConfig& config, const char* products, double tolerance) {
  SCOPED_TRACE(fmt::format("{} {}", to_json(config), products));
  PixArt here(config), there(config);
  fill(here);
  fill(there);
  put_on_gpu(there, products);
  TextPaintRequest request;
  request.texts = {random({4, 16}, 1), random({6, 16}, 2)};
  request.height = 6, request.width = 8, request.count = 2;
  request.options = watched({.sampler = Sampler::dpmpp, .steps = 3, .clip_x0 = false}, {});
  const Tensor expected = paint_batch(here, request, 0, 2);
  request.options = watched(request.options, the_gpu);
  const Tensor samples = paint_batch(there, request, 0, 2);
  ASSERT_TRUE(samples.on_gpu());
  EXPECT_LT(relative_error(samples.host(), values_of(expected)), tolerance);
}

TEST_F(GpuGeneration, FromTextsIsThatOfTheCpu) {
  LINNET_NEED_GPU();
  PixArtConfig lit = test::tiny_pixart(), micro = test::tiny_pixart(), normed = test::tiny_pixart(),
               compressed = test::tiny_pixart();
  lit.mixer = nn::Mixer::lit;
  micro.micro_conditions = true;
  normed.qk_norm = true;
  compressed.kv_compression = {1, 2};
  for (const PixArtConfig& config : {lit, micro, normed, compressed}) check_texts(config, "f32", 1e-3);
}

TEST_F(GpuGeneration, FromTextsInEveryTypeIsNearThatOfTheCpuInF32) {
  LINNET_NEED_GPU();
  PixArtConfig config = test::tiny_pixart();
  config.qk_norm = true;
  config.kv_compression = {2, 1};
  for (const auto& [products, tolerance] : all_types) check_texts(config, products, tolerance);
}

T5Config tiny_t5() {
  T5Config config;
  config.vocabulary = 50, config.width = 16, config.hidden = 24, config.depth = 2, config.heads = 2;
  config.head_size = 8;
  return config;
}

// The same encoder in all its types.
TEST_F(GpuGeneration, TextsAreEncodedAsOnTheCpu) {
  LINNET_NEED_GPU();
  const std::vector<std::vector<int64_t>> ids{{3, 7, 1}, {9, 1}, {5, 4, 3, 2, 11, 49, 1}};
  const std::tuple<bool, const char*, double> rows[] = {
      {false, "f32", 1e-4}, {false, "bf16", 2e-2}, {true, "f32", 1e-4}, {true, "bf16", 2e-2}};
  for (const auto& [eight_bits, products, tolerance] : rows) {
    SCOPED_TRACE(fmt::format("{}{}", products, eight_bits ? ", weights in 8 bits" : ""));
    T5Encoder here(tiny_t5()), there(tiny_t5());
    for (T5Encoder* encoder : {&here, &there}) {
      fill(*encoder);
      if (!eight_bits) continue;
      for (auto& [name, parameter] : nn::all_parameters(*encoder))
        if (parameter->block_matrix) nn::quantize(*parameter);
    }
    put_on_gpu(there, products);
    EXPECT_EQ(there.stored_dtype(), eight_bits ? DType::i8 : DType::f32);
    const std::vector<Tensor> expected = encode_each(here, ids), states = encode_each(there, ids);
    for (size_t i = 0; i < ids.size(); ++i)
      EXPECT_LT(relative_error(states[i], values_of(expected[i])), tolerance) << "text " << i;
  }
}

}  // namespace
}  // namespace linnet
