// A model of texts made of one of classes: where what it is told does not depend on the timestep, it is the
// same function.
#include "store/texts_from_classes.h"

#include <gtest/gtest.h>

#include "store/dit_file.h"
#include "support/refusal.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

nn::Parameter& parameter_of(DiT& model, const std::string& wanted) {
  for (auto& [name, parameter] : nn::learned_parameters(model))
    if (name == wanted) return *parameter;
  fail("no {}", wanted);
}

// Random in every tensor, also those that begin at zero; told the same at every timestep.
class TextsFromClasses : public testing::Test {
 protected:
  TextsFromClasses() : classes_(config()) {
    Generator generator(3);
    for (auto& [name, parameter] : nn::learned_parameters(classes_)) {
      parameter->value = generator.normal(parameter->shape);
      for (float& value :
           std::span(parameter->value.mutable_data<float>(), static_cast<size_t>(parameter->value.numel())))
        value *= 0.3f;
    }
    nn::Parameter& second = parameter_of(classes_, "t_embedder.mlp.2.weight");
    second.value = Tensor::zeros(second.shape);
    x_ = generator.normal({2, 4, 8, 8});
  }

  static DiTConfig config() {
    DiTConfig config = test::tiny_dit();
    config.depth = 2;
    config.mixer = nn::Mixer::lit;
    config.prediction = Prediction::v;
    return config;
  }

  Weights weights() const {
    Weights result("classes.safetensors");
    result.set_metadata("linnet.config", to_json(classes_.config()));
    for (auto& [name, parameter] : nn::learned_parameters(const_cast<DiT&>(classes_))) {
      const Tensor value = parameter->value;
      result.add({name, "F32", DType::f32, value.shape(), [value] { return value; }});
    }
    return result;
  }

  // The student's answer to x, whatever the text.
  Tensor told(const TextsInPlaceOfClasses& texts, const Tensor& x) {
    PixArt student(with_texts(classes_.config(), texts));
    report_ = inherit_with_texts(student, weights(), 7);
    const TextStates states{Generator(5).normal({5, texts.caption_channels}), {0, 2, 5}};
    return student.forward(x, times_, states);
  }
  Tensor of_no_class() const { return classes_.forward(x_, times_, none_); }

  static TextsInPlaceOfClasses narrow() {
    TextsInPlaceOfClasses texts;
    texts.caption_channels = 8;
    texts.caption_tokens = 4;
    texts.cross_heads = 2;
    return texts;
  }

  DiT classes_;
  Tensor x_;
  const Tensor times_ = Tensor::from(std::vector<float>{30, 800});
  const Tensor none_ = Tensor::from(std::vector<int64_t>{3, 3});
  std::vector<Inherited> report_;
};

// Each pixel as a square of n × n.
Tensor in_squares(const Tensor& x, int64_t n) {
  const int64_t height = x.size(2), width = x.size(3);
  Tensor large = Tensor::empty({x.size(0), x.size(1), height * n, width * n});
  float* to = large.mutable_data<float>();
  for (int64_t plane = 0; plane < x.size(0) * x.size(1); ++plane)
    for (int64_t row = 0; row < height * n; ++row)
      for (int64_t column = 0; column < width * n; ++column)
        *to++ = x.data<float>()[(plane * height + row / n) * width + column / n];
  return large;
}

void expect_same(const Tensor& found, const Tensor& expected, float factor = 1) {
  ASSERT_EQ(found.shape(), expected.shape());
  double error = 0, size = 0;
  for (int64_t i = 0; i < found.numel(); ++i) {
    error += std::pow(found.data<float>()[i] - factor * expected.data<float>()[i], 2);
    size += std::pow(expected.data<float>()[i], 2);
  }
  EXPECT_GT(size, 1);
  EXPECT_LT(std::sqrt(error / size), 1e-5);
}

TEST_F(TextsFromClasses, PaintsWhatTheClassModelPaintsOfNoClass) {
  expect_same(told(narrow(), x_), of_no_class());
}

TEST_F(TextsFromClasses, PaintsLargerPicturesInSquares) {
  TextsInPlaceOfClasses texts = narrow();
  texts.enlarge = 2;
  expect_same(told(texts, in_squares(x_, 2)), in_squares(of_no_class(), 2));
}

TEST_F(TextsFromClasses, PredictsThePictureWhereThatIsNearlyTheOppositeOfV) {
  TextsInPlaceOfClasses texts = narrow();
  texts.prediction = Prediction::x0;
  texts.fixed_variance = true;
  const Tensor v = of_no_class();
  Tensor mean = Tensor::empty({2, 4, 8, 8});
  for (int64_t picture = 0; picture < 2; ++picture)
    std::copy_n(v.data<float>() + picture * 8 * 64, 4 * 64, mean.mutable_data<float>() + picture * 4 * 64);
  expect_same(told(texts, x_), mean, -1);
}

TEST_F(TextsFromClasses, WithoutARowForNoClassTakesTheMeanOfAll) {
  DiTConfig without = config();
  without.class_dropout = 0;
  DiT model(without);
  for (auto& [name, parameter] : nn::learned_parameters(model)) {
    const nn::Parameter& source = parameter_of(classes_, name);
    parameter->value = name.starts_with("y_embedder") ? source.value.rows(0, 3) : source.value;
  }
  nn::Parameter& table = parameter_of(classes_, "y_embedder.embedding_table.weight");
  for (int64_t i = 0; i < 16; ++i) {
    float* value = table.value.mutable_data<float>();
    value[3 * 16 + i] = (value[i] + value[16 + i] + value[32 + i]) / 3;
  }
  const Tensor expected = of_no_class();
  classes_ = std::move(model);
  expect_same(told(narrow(), x_), expected);
}

TEST_F(TextsFromClasses, ReportsEveryTensor) {
  told(narrow(), x_);
  for (const Inherited& row : report_) {
    const bool of_texts =
        row.tensor.find("cross_attn") != std::string::npos || row.tensor.starts_with("y_embedder");
    EXPECT_EQ(row.source.empty(), of_texts) << row.tensor;
  }
}

TEST_F(TextsFromClasses, RefusesTensorsThatAreNotAsItsConfigurationSays) {
  PixArt student(with_texts(classes_.config(), narrow()));
  const Weights all = weights();
  for (const char* name :
       {"y_embedder.embedding_table.weight", "blocks.1.adaLN_modulation.1.weight", "final_layer.linear.bias"}) {
    Weights wrong = all.empty_like();
    for (Weights::Item item : all.items()) {
      if (item.name == name) {
        const Tensor less = item.read().rows(0, 1);
        item.shape = less.shape();
        item.read = [less] { return less; };
      }
      wrong.add(std::move(item));
    }
    test::expect_refused(fmt::format("classes.safetensors: tensor \"{}\" has shape", name),
                         [&] { inherit_with_texts(student, wrong, 7); });
  }
}

TEST(WithTexts, RefusesWhatCannotBe) {
  const auto refused = [](TextsInPlaceOfClasses texts, Prediction of_classes, std::string_view why) {
    DiTConfig classes = test::tiny_dit();
    classes.prediction = of_classes;
    try {
      with_texts(classes, texts);
      return false;
    } catch (const UsageError& error) {
      return std::string_view(error.what()).find(why) != std::string_view::npos;
    }
  };
  TextsInPlaceOfClasses texts;
  texts.prediction = Prediction::x0;
  EXPECT_TRUE(refused(texts, Prediction::epsilon, "only v becomes x0"));
  texts = {};
  texts.enlarge = 0;
  EXPECT_TRUE(refused(texts, Prediction::v, "1 to 16 times"));
  texts = {};
  texts.cross_heads = 3;
  EXPECT_TRUE(refused(texts, Prediction::v, "num_cross_heads"));
}

}  // namespace
}  // namespace linnet
