// Models whose matrices are stored in 8 bits: what comes back from the file, what products they run in, and
// what is refused.
#include <gtest/gtest.h>

#include "ops/int8_linear.h"
#include "store/dit_file.h"
#include "support/compare.h"
#include "support/processor.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

class Int8Model : public testing::Test {
 protected:
  Int8Model() {
    nn::initialize(model_, 1);
    // adaLN and the last layer start at zero, which would hide everything between.
    for (auto& [name, parameter] : nn::learned_parameters(model_)) {
      Generator generator(nn::hash_name(name));
      parameter->init = nn::Init::normal(0.1f);
      nn::draw(*parameter, generator);
    }
  }
  static Tensor forward(const DiT& model) {
    const Tensor x = Generator(3).normal({2, 4, 8, 8});
    return model.forward(x, Tensor::full({2}, 500.0f), Tensor::from(std::vector<int64_t>{0, 3}));
  }
  /// The model's file with one tensor left out or replaced.
  std::string error_when(const std::function<void(std::vector<std::pair<std::string, Tensor>>&)>& change) {
    model_.set_product_dtype(DType::i8);
    save_dit(folder_ / "m", model_, DType::f32);
    const auto file = SafetensorsFile::open(folder_ / "m");
    std::vector<std::pair<std::string, Tensor>> tensors;
    const Weights weights = Weights::of(file);
    for (const Weights::Item& item : weights.items()) tensors.emplace_back(item.name, item.read());
    change(tensors);
    write_safetensors(folder_ / "changed", tensors, file.metadata());
    return test::refusal([&] { load_dit(folder_ / "changed"); });
  }

  TemporaryFolder folder_;
  DiT model_{test::tiny_dit()};
};

TEST_F(Int8Model, ComesBackFromItsFileAndGivesTheSameBytes) {
  model_.set_product_dtype(DType::i8);
  save_dit(folder_ / "m", model_, DType::bf16);
  const LoadedDiT loaded = load_dit(folder_ / "m");
  EXPECT_EQ(loaded.model->product_dtype_from_name("auto"), DType::i8);
  loaded.model->set_product_dtype(DType::i8);
  const LoadedDiT again = load_dit(folder_ / "m");
  EXPECT_EQ(fingerprint(*loaded.model), fingerprint(*again.model));
  save_dit(folder_ / "n", *loaded.model, DType::bf16);
  EXPECT_EQ(fingerprint(*load_dit(folder_ / "n").model), fingerprint(*loaded.model));
}

TEST_F(Int8Model, HoldsTheBlocksMatricesInAQuarterOfTheBytes) {
  model_.set_product_dtype(DType::i8);
  model_.visit("", [](const std::string& name, nn::Parameter& parameter) {
    const bool matrix = name.starts_with("blocks.") && name.ends_with(".weight") && parameter.shape.rank() == 2;
    EXPECT_EQ(parameter.value.dtype(), matrix ? DType::i8 : DType::f32) << name;
    EXPECT_EQ(parameter.scale.defined(), matrix) << name;
  });
}

// Their scale would be subnormal, and its inverse infinite.
TEST_F(Int8Model, RowsThatAreNearlyZeroBecomeZero) {
  const Tensor from = Tensor::from(std::vector<float>{1e-40f, 0, -1e-37f, 1, 0, -0.75f});
  const ops::Int8Matrix rounded = ops::quantize(from.reshape({2, 3}));
  const auto values = rounded.values.values<int8_t>();
  EXPECT_EQ((std::vector<int8_t>{values.begin(), values.end()}), (std::vector<int8_t>{0, 0, 0, 127, 0, -95}));
  EXPECT_EQ(rounded.scale.data<float>()[0], 0.0f);
}

TEST_F(Int8Model, RunsInWhateverTypeIsAskedFor) {
  nn::freeze(model_);
  const Tensor exact = forward(model_);
  model_.set_product_dtype(DType::i8);
  EXPECT_LT(test::relative_error(forward(model_), exact), 0.03);
  for (const DType dtype : test::product_dtypes()) {
    model_.set_product_dtype(dtype);  // from here on the rounded weights, as floats
    EXPECT_LT(test::relative_error(forward(model_), exact), 0.03) << name_of(dtype);
  }
}

TEST_F(Int8Model, DoesNotLearn) {
  model_.set_product_dtype(DType::i8);
  EXPECT_THROW(forward(model_), Error) << "not frozen";
}

TEST_F(Int8Model, WithoutItsScalesIsRefused) {
  EXPECT_EQ(error_when([](auto& tensors) {
              std::erase_if(tensors, [](const auto& t) { return t.first == "blocks.0.mlp.fc1.weight_scale"; });
            }),
            (folder_ / "changed").string() +
                ": tensor \"blocks.0.mlp.fc1.weight\" is of type i8, which a model takes of matrices that come "
                "with a "
                "scale for each row");
  EXPECT_EQ(error_when([](auto& tensors) {
              for (auto& [name, tensor] : tensors)
                if (name == "blocks.0.mlp.fc1.weight_scale") tensor = Tensor::zeros({1, 64});
            }),
            (folder_ / "changed").string() +
                ": tensor \"blocks.0.mlp.fc1.weight_scale\" is f32 of (1, 64), not f32 of (64, 1)");
  EXPECT_EQ(error_when([](auto& tensors) {
              for (auto& [name, tensor] : tensors)
                if (name == "blocks.0.mlp.fc1.weight") tensor = Tensor::zeros(tensor.shape());
            }),
            (folder_ / "changed").string() +
                ": tensor \"blocks.0.mlp.fc1.weight\" is of type f32 and has no use for "
                "\"blocks.0.mlp.fc1.weight_scale\"");
}

}  // namespace
}  // namespace linnet
