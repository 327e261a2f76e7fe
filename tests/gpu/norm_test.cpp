#include "gpu/support.h"
#include "ops/arrange.h"
#include "ops/cast.h"
#include "ops/gated_residual.h"
#include "ops/layer_norm_modulate.h"
#include "ops/residual_norm.h"
#include "ops/rms_norm.h"

namespace linnet::ops::test {
namespace {

// Few and many rows, and rows for which several parts are summed.
const std::vector<std::pair<int64_t, int64_t>> batches = {{1, 1}, {2, 5}, {1, 37}, {3, 50}};

std::vector<float> floats_of(const Tensor& t) {
  const Tensor here = t.host().to(DType::f32);
  return {here.data<float>(), here.data<float>() + here.numel()};
}

// The widths take every kernel: a warp a row of each size, a block a row, any other width.
TEST(GpuOperations, LayerNormModulate) {
  LINNET_NEED_GPU();
  const auto check_shape = [](int64_t batch, int64_t tokens, int64_t d) {
    check_on_gpu({.name = fmt::format("layer_norm_modulate {} {} {}", batch, tokens, d),
                  .inputs = {random({batch, tokens, d}, 1), random({batch, d}, 2), random({batch, d}, 3)},
                  .typed = "t..",
                  .operation = [](const Inputs& in, DType dtype) {
                    return layer_norm_modulate(in[0], in[1], in[2], 1e-6f, dtype);
                  }});
  };
  for (const auto& [batch, tokens] : batches)
    for (const int64_t d : {3, 7, 64, 130, 384}) check_shape(batch, tokens, d);
  for (const int64_t d : {768, 1152, 1536, 1540, 2050, 4096, 4100}) check_shape(2, 6, d);
  check_shape(1, 2, 12304);
}

// The residual stream is f32, what goes into products is not, and its gradient comes in either type.
TEST(GpuOperations, LayerNormModulateBetweenTypes) {
  LINNET_NEED_GPU();
  for (const int64_t d : {64, 65, 1152})
    check_on_gpu({.name = fmt::format("layer_norm_modulate from f32, {}", d),
                  .inputs = {random({2, 21, d}, 1), random({2, d}, 2), random({2, d}, 3)},
                  .typed = "...",
                  .operation = [](const Inputs& in, DType dtype) {
                    return layer_norm_modulate(in[0], in[1], in[2], 1e-6f, dtype);
                  }});
}

TEST(GpuOperations, LayerNormTakesGradientsOfAnyType) {
  LINNET_NEED_GPU();
  for (const int64_t d : {64, 65}) {
    const Tensor x = random({2, 21, d}, 1), shift = random({2, d}, 2), scale = random({2, d}, 3);
    const Operation norm = [](const Inputs& in) {
      return layer_norm_modulate(in[0], in[1], in[2], 1e-6f, DType::f32);
    };
    for (const DType dtype : {DType::bf16, DType::f16}) {
      const Tensor g = random({2, 21, d}, 9, dtype);
      const Result expected = run(norm, {x, shift, scale}, g.to(DType::f32));
      const Result actual = run(norm, {x.to(the_gpu), shift.to(the_gpu), scale.to(the_gpu)}, g.to(the_gpu));
      for (size_t i = 0; i < 3; ++i)
        EXPECT_LT(relative_error(actual.gradients[i].host(), values_of(expected.gradients[i])), 1e-4) << i;
    }
  }
}

// Of values that are large and close together a mean in f32 would be off by more than their deviation.
TEST(GpuOperations, LayerNormOfValuesCloseTogether) {
  LINNET_NEED_GPU();
  for (const int64_t d : {384, 385}) {
    Tensor x = random({1, 3, d}, 1, DType::f32, 1e-2f);
    for (float& value : std::span(x.mutable_data<float>(), static_cast<size_t>(x.numel()))) value += 1e4f;
    const Tensor none = Tensor::zeros({1, d});
    const Tensor here = layer_norm_modulate(x, none, none, 1e-6f, DType::f32);
    const Tensor there = layer_norm_modulate(x.to(the_gpu), none, none, 1e-6f, DType::f32);
    EXPECT_LT(relative_error(there.host(), values_of(here)), 1e-4);
  }
}

TEST(GpuOperations, GatedResidual) {
  LINNET_NEED_GPU();
  for (const auto& [batch, tokens] : batches)
    for (const int64_t d : {1, 7, 64, 130, 1152, 2052})
      check_on_gpu(
          {.name = fmt::format("gated_residual {} {} {}", batch, tokens, d),
           .inputs = {random({batch, tokens, d}, 1), random({batch, d}, 2), random({batch, tokens, d}, 3)},
           .typed = "..t",
           .operation = [](const Inputs& in, DType) { return gated_residual(in[0], in[1], in[2]); }});
}

// The sum and its norm, so that both ways back meet. The widest have no kernel of their own.
TEST(GpuOperations, JoinAndNorm) {
  LINNET_NEED_GPU();
  const auto both = [](Residual stream, const Tensor& shift, const Tensor& scale, DType dtype) {
    const JoinedNorm result = join_and_norm(std::move(stream), shift, scale, 1e-6f, dtype);
    return add(result.x, cast(result.normed, DType::f32));
  };
  for (const auto& [batch, tokens] : batches)
    for (const int64_t d : {3, 64, 130, 384, 700, 1152, 1156}) {
      const Tensor x = random({batch, tokens, d}, 1), branch = random({batch, tokens, d}, 2);
      const Tensor gate = random({batch, d}, 3), shift = random({batch, d}, 4), scale = random({batch, d}, 5);
      check_on_gpu({.name = fmt::format("join_and_norm {} {} {}", batch, tokens, d),
                    .inputs = {x, gate, branch, shift, scale},
                    .typed = "..t..",
                    .operation = [&](const Inputs& in, DType dtype) {
                      return both({in[0], in[1], in[2]}, in[3], in[4], dtype);
                    }});
      check_on_gpu({.name = fmt::format("join_and_norm without gate {} {} {}", batch, tokens, d),
                    .inputs = {x, branch, shift, scale},
                    .typed = "....",
                    .operation = [&](const Inputs& in, DType dtype) {
                      return both({in[0], {}, in[1]}, in[2], in[3], dtype);
                    }});
    }
}

// One kernel or two: the same bits.
TEST(GpuOperations, JoinAndNormIsTheTwoOperations) {
  LINNET_NEED_GPU();
  for (const int64_t d : {384, 768, 1152})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Tensor x = random({2, 9, d}, 1).to(the_gpu), branch = random({2, 9, d}, 2).to(dtype).to(the_gpu);
      const Tensor gate = random({2, d}, 3).to(the_gpu), shift = random({2, d}, 4).to(the_gpu);
      const JoinedNorm together = join_and_norm({x, gate, branch}, shift, gate, 1e-6f, dtype);
      const Tensor sum = gated_residual(x, gate, branch);
      EXPECT_EQ(floats_of(together.x), floats_of(sum));
      EXPECT_EQ(floats_of(together.normed), floats_of(layer_norm_modulate(sum, shift, gate, 1e-6f, dtype)));
    }
}

TEST(GpuOperations, RmsNorm) {
  LINNET_NEED_GPU();
  for (const int64_t rows : {1, 5, 40})
    for (const int64_t d : {3, 7, 64, 257, 1024})
      check_on_gpu(
          {.name = fmt::format("rms_norm {} {}", rows, d),
           .inputs = {random({rows, d}, 1), random({d}, 2)},
           .typed = ".t",
           .operation = [](const Inputs& in, DType dtype) { return rms_norm(in[0], in[1], 1e-6f, dtype); }});
}

}  // namespace
}  // namespace linnet::ops::test
