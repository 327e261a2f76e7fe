// DiT and LiT against dumps of a PyTorch reference (tests/reference) on random weights.
#include <gtest/gtest.h>

#include "core/tape.h"
#include "io/safetensors.h"
#include "store/dit_file.h"
#include "support/compare.h"
#include "support/processor.h"

namespace linnet {
namespace {

using test::relative_error;

class DiTReference : public testing::TestWithParam<const char*> {
 protected:
  std::string file(const char* kind) const {
    return fmt::format("{}/reference/{}.{}.safetensors", LINNET_TEST_DATA, GetParam(), kind);
  }
  double error_in(DType dtype, bool frozen) const {
    const LoadedDiT loaded = load_dit(file("model"));
    const auto io = SafetensorsFile::open(file("io"));
    loaded.model->set_product_dtype(dtype);
    if (frozen) nn::freeze(*loaded.model);
    return relative_error(loaded.model->forward(io.tensor("x"), io.tensor("t"), io.tensor("y")),
                          io.tensor("out"));
  }
};

TEST_P(DiTReference, ForwardAgreesInF32) { EXPECT_LT(error_in(DType::f32, false), 1e-4); }
TEST_P(DiTReference, ForwardOnPackedWeightsAgreesInF32) { EXPECT_LT(error_in(DType::f32, true), 1e-4); }
TEST_P(DiTReference, ForwardAgreesInBf16) {
  LINNET_NEED_BF16_PRODUCTS();
  EXPECT_LT(error_in(DType::bf16, false), 2e-2);
}
TEST_P(DiTReference, ForwardOnPackedWeightsAgreesInBf16) {
  LINNET_NEED_BF16_PRODUCTS();
  EXPECT_LT(error_in(DType::bf16, true), 2e-2);
}

TEST_P(DiTReference, ForwardInEightBitsStaysNear) { EXPECT_LT(error_in(DType::i8, true), 5e-2); }

INSTANTIATE_TEST_SUITE_P(All, DiTReference,
                         testing::Values("dit_softmax", "dit_linear", "dit_lit", "dit_lit_patch4",
                                         "dit_softmax_odd", "dit_lit_odd", "dit_no_sigma", "dit_focused",
                                         "dit_focused_gelu"),
                         [](const auto& instance) { return std::string(instance.param); });

// The other mixers' gradients are compared in ten training steps.
class FocusedReference : public DiTReference {
 protected:
  void expect_gradients(DType dtype, double tolerance) const {
    const LoadedDiT loaded = load_dit(file("model"));
    const auto io = SafetensorsFile::open(file("io"));
    loaded.model->set_product_dtype(dtype);
    auto parameters = nn::learned_parameters(*loaded.model);
    for (auto& [name, parameter] : parameters) parameter->value.set_requires_grad(true);
    Tape tape;
    tape.backward(loaded.model->forward(io.tensor("x"), io.tensor("t"), io.tensor("y")), io.tensor("g"));
    for (const auto& [name, parameter] : parameters) {
      if (name.find(".attn.") == std::string::npos) continue;
      EXPECT_LT(relative_error(parameter->value.grad(), io.tensor("grad." + name)), tolerance) << name;
    }
  }
};

TEST_P(FocusedReference, GradientsAgreeInF32) { expect_gradients(DType::f32, 1e-4); }
// A cube triples every rounding of q and k, forward and backward.
TEST_P(FocusedReference, GradientsAgreeInBf16) {
  LINNET_NEED_BF16_PRODUCTS();
  expect_gradients(DType::bf16, 5e-2);
}

INSTANTIATE_TEST_SUITE_P(All, FocusedReference, testing::Values("dit_focused", "dit_focused_gelu"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace linnet
