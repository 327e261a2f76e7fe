// Frozen layers run on packed weights: of what the weights are now, not of what they were when they were
// packed.
#include "nn/linear.h"

#include <gtest/gtest.h>

#include "support/compare.h"

namespace linnet::nn {
namespace {

Tensor drawn(const Shape& shape, uint64_t seed) {
  Parameter parameter(shape, Init::normal(1));
  Generator generator(seed);
  draw(parameter, generator);
  return parameter.value;
}

Linear frozen_layer() {
  Linear layer(64, 48);
  layer.weight.value = drawn({48, 64}, 1);
  layer.bias.value = drawn({48}, 2);
  freeze(layer);
  return layer;
}

double difference(const Linear& one, const Linear& other, DType dtype) {
  const Tensor x = drawn({5, 64}, 3).to(dtype);
  return test::relative_error(one.forward(x, DType::f32), other.forward(x, DType::f32));
}

TEST(Linear, NoticesThatItsWeightsBecomeOf8BitsAndFloatsAgain) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Linear used = frozen_layer(), fresh = frozen_layer();
    EXPECT_EQ(difference(used, fresh, dtype), 0);
    quantize(used.weight);
    EXPECT_GT(difference(used, fresh, dtype), 1e-4) << name_of(dtype);
    quantize(fresh.weight);  // packed already as floats
    EXPECT_EQ(difference(used, fresh, dtype), 0) << name_of(dtype);
    Linear untouched = frozen_layer();
    quantize(untouched.weight);
    EXPECT_EQ(difference(used, untouched, dtype), 0) << name_of(dtype);
    dequantize(used.weight);
    EXPECT_LT(difference(used, frozen_layer(), dtype), 0.05) << name_of(dtype);
  }
}

}  // namespace
}  // namespace linnet::nn
