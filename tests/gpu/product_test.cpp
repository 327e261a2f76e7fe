// Products on the GPU: linear layers forward and backward, streamed and packed weights, 8 bits.
#include "gpu/support.h"
#include "nn/linear.h"
#include "ops/gpu_kernels.h"
#include "ops/int8_linear.h"
#include "ops/linear.h"
#include "ops/streamed_linear.h"

namespace linnet::ops::test {
namespace {

constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;

struct Size {
  int64_t rows, in, out;
};
const std::vector<Size> sizes{{1, 1, 1}, {5, 7, 3}, {33, 65, 17}, {64, 32, 48}};

std::string name(std::string_view what, const Size& s) {
  return fmt::format("{} {}x{}x{}", what, s.rows, s.in, s.out);
}

TEST(GpuOperations, Linear) {
  LINNET_NEED_GPU();
  for (const Size& s : sizes) {
    const Tensor x = random({s.rows, s.in}, 1), w = random({s.out, s.in}, 2), b = random({s.out}, 3);
    for (const Activation activation : {Activation::none, Activation::gelu_tanh}) {
      check_on_gpu({.name = name("linear with a bias", s),
                    .inputs = {x, w, b},
                    .typed = "t..",
                    .operation = [activation](const Inputs& in, DType dtype) {
                      return linear(in[0], in[1], in[2], activation, dtype);
                    }});
      check_on_gpu({.name = name("linear without", s),
                    .inputs = {x, w},
                    .operation = [activation](const Inputs& in, DType) {
                      return linear(in[0], in[1], {}, activation, f32);
                    }});
      check_on_gpu(
          {.name = name("linear without gradients", s),
           .inputs = {x, w, b},
           .operation = [activation](const Inputs& in,
                                     DType dtype) { return linear(in[0], in[1], in[2], activation, dtype); },
           .differentiable = false});
      check_on_gpu(
          {.name = name("linear of f32 into 16 bits", s),
           .inputs = {x, w, b},
           .typed = "...",
           .operation = [activation](const Inputs& in,
                                     DType dtype) { return linear(in[0], in[1], in[2], activation, dtype); },
           .differentiable = false});
    }
  }
}

TEST(GpuOperations, FeedForward) {
  LINNET_NEED_GPU();
  for (const Size& s : sizes) {
    const int64_t hidden = 2 * s.in;
    const Tensor x = random({s.rows, s.in}, 1), first = random({hidden, s.in}, 2),
                 first_bias = random({hidden}, 3), second = random({s.out, hidden}, 4),
                 second_bias = random({s.out}, 5);
    check_on_gpu({.name = name("feed forward", s),
                  .inputs = {x, first, first_bias, second, second_bias},
                  .typed = "t....",
                  .operation = [](const Inputs& in, DType dtype) {
                    return feed_forward(in[0], {in[1], in[2]}, {in[3], in[4]}, dtype);
                  }});
    check_on_gpu({.name = name("feed forward without biases", s),
                  .inputs = {x, first, second},
                  .typed = "t..",
                  .operation = [](const Inputs& in, DType) {
                    return feed_forward(in[0], {in[1], {}}, {in[2], {}}, f32);
                  }});
  }
}

TEST(GpuOperations, LinearOfThreeDimensions) {
  LINNET_NEED_GPU();
  check_on_gpu({.name = "linear",
                .inputs = {random({2, 5, 12}, 1), random({9, 12}, 2), random({9}, 3)},
                .operation = [](const Inputs& in, DType dtype) {
                  return linear(in[0], in[1], in[2], Activation::none, dtype);
                }});
}

TEST(GpuLinear, AddsItsGradientsWhereItIsUsedTwice) {
  LINNET_NEED_GPU();
  check_on_gpu({.name = "the same layer twice",
                .inputs = {random({6, 10}, 1), random({10, 10}, 2), random({10}, 3)},
                .operation = [](const Inputs& in, DType dtype) {
                  const Tensor h = linear(in[0], in[1], in[2], Activation::none, dtype);
                  return linear(h, in[1], in[2], Activation::none, dtype);
                }});
}

// The device of all operands but one; which is the GPU's.
TEST(GpuLinear, TakesWhatLiesOnTheOtherDevice) {
  LINNET_NEED_GPU();
  const Tensor x = random({4, 6}, 1), w = random({5, 6}, 2), b = random({5}, 3), weights = random({4, 5}, 4);
  const Operation operation = [](const Inputs& in) {
    return linear(in[0], in[1], in[2], Activation::gelu_tanh, f32);
  };
  const Result expected = run(operation, {x, w, b}, weights);
  for (const Inputs& inputs : {Inputs{x.to(the_gpu), w, b}, Inputs{x, w.to(the_gpu), b}}) {
    const Result actual = run(operation, inputs, weights);
    ASSERT_TRUE(actual.output.on_gpu());
    EXPECT_LT(relative_error(actual.output.host(), values_of(expected.output)), 1e-4);
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_LT(relative_error(actual.gradients[i].host(), values_of(expected.gradients[i])), 1e-4);
  }
}

TEST(GpuMatmul, TakesTransposesAndAdds) {
  LINNET_NEED_GPU();
  for (const Size& s : sizes)
    for (const DType dtype : {f32, bf16, f16})
      for (const bool left : {false, true})
        for (const bool right : {false, true}) {
          SCOPED_TRACE(fmt::format("{} {} {} {}", name("", s), name_of(dtype), left, right));
          const Tensor a = random(left ? Shape{s.in, s.rows} : Shape{s.rows, s.in}, 1).to(dtype);
          const Tensor b = random(right ? Shape{s.out, s.in} : Shape{s.in, s.out}, 2).to(dtype);
          const auto product = [&](const Tensor& p, const Tensor& q, Tensor into, bool accumulate) {
            matmul(left ? as_matrix(p).transposed() : as_matrix(p),
                   right ? as_matrix(q).transposed() : as_matrix(q), into, {.accumulate = accumulate});
            return into;
          };
          const Tensor before = random({s.rows, s.out}, 3);
          const Tensor expected = product(a.to(f32), b.to(f32), before.clone(), true);
          const Tensor actual = product(a.to(the_gpu), b.to(the_gpu), before.to(the_gpu).clone(), true);
          EXPECT_LT(relative_error(actual.host(), values_of(expected)), 1e-4);
          const Tensor twice = product(a.to(the_gpu), b.to(the_gpu), before.to(dtype).to(the_gpu), true);
          EXPECT_LT(relative_error(twice.host(), values_of(expected)), gpu_tolerance(dtype));
        }
}

// Columns of a wider matrix, and a product that is one of its rows.
TEST(GpuMatmul, TakesParts) {
  LINNET_NEED_GPU();
  const Tensor a = random({7, 12}, 1), b = random({5, 12}, 2);
  const auto part = [](const Tensor& x, int64_t rows) {
    MatrixView view = as_matrix(x);
    view.rows = rows;
    view.columns = 5;
    return view;
  };
  for (const int64_t rows : {1, 7}) {
    Tensor expected = Tensor::empty({rows, 5}), actual = Tensor::empty({rows, 5}, f32, the_gpu);
    const Tensor a_there = a.to(the_gpu), b_there = b.to(the_gpu);
    matmul(part(a, rows), part(b, 5).transposed(), expected);
    matmul(part(a_there, rows), part(b_there, 5).transposed(), actual);
    EXPECT_LT(relative_error(actual.host(), values_of(expected)), 1e-5);
  }
  const Tensor there = a.to(the_gpu);
  MatrixView strided = as_matrix(there);
  strided.columns = 6;
  strided.column_stride = 2;
  Tensor into = Tensor::empty({7, 7}, f32, the_gpu);
  EXPECT_THROW(matmul(strided, strided.transposed(), into), Error);
}

TEST(GpuMatmul, MultipliesManyAtOnce) {
  LINNET_NEED_GPU();
  const int64_t batch = 3, rows = 4, inner = 6, columns = 5;
  const Tensor a = random({batch, rows, inner}, 1), b = random({batch, columns, inner}, 2);
  Tensor expected = Tensor::empty({batch, rows, columns}),
         actual = Tensor::empty(expected.shape(), f32, the_gpu);
  const auto sample = [](const Tensor& x, int64_t i) {
    return x.rows(i, i + 1).reshape({x.size(1), x.size(2)});
  };
  for (int64_t i = 0; i < batch; ++i) {
    Tensor into = sample(expected, i);
    matmul(as_matrix(sample(a, i)), as_matrix(sample(b, i)).transposed(), into);
  }
  const Tensor a_there = a.to(the_gpu), b_there = b.to(the_gpu);
  gpu_kernels().product.matmul_batch(as_matrix(sample(a_there, 0)), as_matrix(sample(b_there, 0)).transposed(),
                                     rows * inner, columns * inner, rows * columns, batch, false, false,
                                     actual.view());
  EXPECT_LT(relative_error(actual.host(), values_of(expected)), 1e-5);
}

TEST(GpuPackedWeight, GivesTheSameAsOnTheCpu) {
  LINNET_NEED_GPU();
  for (const Size& s : sizes) {
    const Tensor w = random({s.out, s.in}, 1), b = random({s.out}, 2), x = random({s.rows, s.in}, 3);
    const Tensor expected = linear(x, PackedWeight(w, f32), b, Activation::gelu_tanh, f32);
    for (const DType dtype : {f32, bf16, f16})
      for (const Tensor& input : {x, x.to(the_gpu)}) {
        const PackedWeight packed(w.to(the_gpu), dtype);
        const Tensor y = linear(input, packed, b, Activation::gelu_tanh, dtype);
        ASSERT_TRUE(y.on_gpu());
        EXPECT_LT(relative_error(y.host(), values_of(expected)), 1.5 * gpu_tolerance(dtype));
      }
  }
}

TEST(GpuStreamedLinear, TakesWeightsOfEveryTypeOnEitherDevice) {
  LINNET_NEED_GPU();
  for (const Size& s : sizes) {
    const Tensor x = random({2, s.rows, s.in}, 1), w = random({s.out, s.in}, 2);
    const Int8Matrix rounded = quantize(w);
    for (const DType dtype : {f32, bf16, f16}) {
      const Tensor expected = streamed_linear(x, w, {}, f32);
      const Tensor expected_int8 = streamed_linear(x, rounded.values, rounded.scale, f32);
      for (const bool weight_there : {false, true}) {
        const auto place = [&](const Tensor& t) { return weight_there ? t.to(the_gpu) : t; };
        for (const DType stored : {f32, bf16, f16}) {
          const Tensor y = streamed_linear(x.to(dtype).to(the_gpu), place(w.to(stored)), {}, dtype);
          ASSERT_TRUE(y.on_gpu());
          EXPECT_LT(relative_error(y.host(), values_of(expected)),
                    std::max(gpu_tolerance(dtype), gpu_tolerance(stored)));
        }
        const Tensor y =
            streamed_linear(x.to(dtype).to(the_gpu), place(rounded.values), place(rounded.scale), f32);
        EXPECT_LT(relative_error(y.host(), values_of(expected_int8)), gpu_tolerance(dtype));
      }
    }
  }
}

TEST(GpuInt8, RoundsAsTheCpuDoes) {
  LINNET_NEED_GPU();
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 7}, Shape{5, 300}, Shape{4, 64}}) {
    Tensor w = random(shape, 1);
    w.mutable_data<float>()[0] = 0;
    for (int64_t i = 0; i < shape[1]; ++i)  // a row that has decayed to nothing
      w.mutable_data<float>()[(shape[0] - 1) * shape[1] + i] = 1e-40f;
    const Int8Matrix here = quantize(w), there = quantize(w.to(the_gpu));
    EXPECT_EQ(values_of(there.scale.host()), values_of(here.scale));
    const Tensor values = there.values.host();
    int different = 0;
    for (int64_t i = 0; i < w.numel(); ++i)
      different += values.data<int8_t>()[i] != here.values.data<int8_t>()[i];
    EXPECT_EQ(different, 0);
    for (const DType dtype : {f32, bf16, f16})
      EXPECT_LT(relative_error(dequantize(there, dtype).host(), values_of(dequantize(here, f32))),
                gpu_tolerance(dtype));
  }
}

TEST(GpuInt8, RefusesWhatIsNotFinite) {
  LINNET_NEED_GPU();
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const int64_t place : {0, 299, 599}) {
      Tensor w = random({2, 300}, 1);
      w.mutable_data<float>()[place] = bad;
      EXPECT_THROW(quantize(w.to(the_gpu)), Error);
    }
}

// A layer's weight on either device, in floats and in 8 bits, frozen: the GPU wins.
TEST(GpuLinearLayer, WorksWhereItsWeightOrItsInputLies) {
  LINNET_NEED_GPU();
  for (const bool eight_bits : {false, true})
    for (const bool weight_there : {false, true})
      for (const bool x_there : {false, true}) {
        if (!weight_there && !x_there) continue;
        SCOPED_TRACE(fmt::format("{} {} {}", eight_bits, weight_there, x_there));
        nn::Linear layer(12, 9);
        layer.weight.value = random({9, 12}, 1);
        layer.bias.value = random({9}, 2);
        if (eight_bits) nn::quantize(layer.weight);
        const Tensor weight =
            eight_bits ? dequantize({layer.weight.value, layer.weight.scale}, f32) : layer.weight.value;
        const Tensor x = random({2, 3, 12}, 3),
                     expected = linear(x, weight, layer.bias.value, Activation::none, f32);
        if (weight_there) layer.weight.value = layer.weight.value.to(the_gpu);
        layer.weight.frozen = layer.bias.frozen = true;
        for (const DType dtype : {f32, bf16, f32}) {
          const Tensor input = x_there ? x.to(the_gpu).to(dtype) : x.to(dtype);
          const Tensor y = layer.forward(input, dtype);
          ASSERT_TRUE(y.on_gpu());
          EXPECT_LT(relative_error(y.host(), values_of(expected)), gpu_tolerance(dtype));
        }
      }
}

TEST(GpuLinearLayer, MovesBackToTheCpu) {
  LINNET_NEED_GPU();
  nn::Linear layer(4, 3);
  const Tensor w = random({3, 4}, 1), x = random({2, 4}, 3);
  layer.bias.value = random({3}, 2);
  layer.weight.frozen = layer.bias.frozen = true;
  std::vector<Tensor> results;
  for (const Device& device : {Device{}, the_gpu, Device{}}) {
    layer.weight.value = w.to(device);
    results.push_back(layer.forward(x.to(device), f32));
    EXPECT_EQ(results.back().device(), device);
    EXPECT_LT(relative_error(results.back().host(), values_of(results.front())), 1e-5);
  }
}

TEST(GpuProductType, IsNamed) {
  LINNET_NEED_GPU();
  EXPECT_EQ(fastest_product_dtype(the_gpu), open_gpu(the_gpu).info.architecture >= 80 ? bf16 : f16);
  EXPECT_EQ(product_dtype_from_name("auto", the_gpu), fastest_product_dtype(the_gpu));
  EXPECT_EQ(product_dtype_from_name("f16", the_gpu), f16);
  EXPECT_EQ(product_dtype_from_name("int8", the_gpu), DType::i8);
  EXPECT_EQ(product_dtype_from_name("tf32", the_gpu), f32);
  set_tf32(false);
  EXPECT_THROW(product_dtype_from_name("tf32"), UsageError);
  EXPECT_THROW(product_dtype_from_name("f16"), UsageError);
  EXPECT_THROW(product_dtype_from_name("f8", the_gpu), UsageError);
  EXPECT_FALSE(have_int8_products(the_gpu));
  EXPECT_NE(matmul_engine_name(the_gpu), matmul_engine_name());
}

}  // namespace
}  // namespace linnet::ops::test
