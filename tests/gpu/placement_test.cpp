// Models of which a small card holds a part.
#include "nn/placement.h"

#include "gpu/models.h"
#include "models/dit.h"
#include "pipeline/generate.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

DiT frozen(bool eight_bits) {
  DiT model(test::tiny_dit());
  test::draw_all(model);
  model.set_product_dtype(eight_bits ? DType::i8 : DType::f32);
  nn::freeze(model);
  return model;
}

// How many parameters lie on the GPU, and how many of those that may stay do not.
std::pair<int, int> here_and_there(DiT& model) {
  int there = 0, here = 0;
  for (const auto& [name, parameter] : nn::all_parameters(model)) {
    EXPECT_TRUE(parameter->value.on_gpu() || parameter->block_matrix) << name;
    ++(parameter->value.on_gpu() ? there : here);
  }
  return {there, here};
}

size_t bytes_that_always_move(DiT model) {
  size_t bytes = 0;
  for (const auto& [name, parameter] : nn::all_parameters(model))
    bytes += parameter->block_matrix ? 0 : parameter->value.bytes();
  return bytes;
}

TEST(GpuPlacement, WhatFindsNoRoomVisits) {
  LINNET_NEED_GPU();
  for (const bool eight_bits : {false, true}) {
    SCOPED_TRACE(eight_bits);
    DiT whole = frozen(eight_bits);
    nn::place(whole, the_gpu, DType::f32, SIZE_MAX);
    EXPECT_EQ(here_and_there(whole).second, 0);
    const Tensor expected = generate(whole, {0, 1}, {3, 4}, {.steps = 3, .device = the_gpu}).host();
    int before = 0;
    const size_t others = bytes_that_always_move(frozen(eight_bits));
    for (const size_t room : {others + (size_t{1} << 14), others}) {  // some of them, and none
      DiT part = frozen(eight_bits);
      nn::place(part, the_gpu, DType::f32, room);
      const auto [there, here] = here_and_there(part);
      EXPECT_GT(there, 0);
      EXPECT_GT(here, before);
      before = here;
      const Tensor samples = generate(part, {0, 1}, {3, 4}, {.steps = 3, .device = the_gpu}).host();
      EXPECT_LT(relative_error(samples, values_of(expected)), 1e-3);
    }
  }
}

// No kernel takes f64, and none of it is left.
TEST(GpuPlacement, WeightsInF64BecomeF32) {
  LINNET_NEED_GPU();
  const auto widened = [](const Tensor& narrow) {
    Tensor wide = Tensor::empty(narrow.shape(), DType::f64);
    std::copy_n(narrow.data<float>(), narrow.numel(), wide.mutable_data<double>());
    return wide;
  };
  const auto painted = [&](DType stored, size_t room) {
    DiT model = frozen(false);
    for (const auto& [name, parameter] : nn::all_parameters(model))
      if (stored == DType::f64) parameter->value = widened(parameter->value);
    nn::place(model, the_gpu, DType::f32, room);
    return generate(model, {0, 1}, {3, 4}, {.steps = 2, .device = the_gpu}).host();
  };
  const Tensor expected = painted(DType::f32, SIZE_MAX);
  EXPECT_TRUE(ops::test::same_bytes(painted(DType::f64, SIZE_MAX), expected));
  EXPECT_TRUE(ops::test::same_bytes(painted(DType::f64, 0), expected));
}

// In the products' type, so that no more of it travels than is multiplied.
TEST(GpuPlacement, WhatVisitsOftenLiesReady) {
  LINNET_NEED_GPU();
  const auto visitors = [](DiT model, nn::Called called) {
    nn::place(model, the_gpu, DType::bf16, 0, called);
    std::vector<Tensor> result;
    for (const auto& [name, parameter] : nn::all_parameters(model))
      if (!parameter->value.on_gpu()) result.push_back(parameter->value);
    return result;
  };
  const std::vector<Tensor> often = visitors(frozen(false), nn::Called::often),
                            seldom = visitors(frozen(false), nn::Called::seldom);
  ASSERT_GT(seldom.size(), 0u);
  ASSERT_EQ(often.size(), seldom.size());
  for (size_t i = 0; i < often.size(); ++i) {
    EXPECT_EQ(seldom[i].dtype(), DType::f32);
    EXPECT_TRUE(ops::test::same_bytes(often[i], seldom[i].to(DType::bf16)));
    EXPECT_TRUE(ops::test::same_bytes(often[i].to(the_gpu).host(), often[i]));
  }
  for (const Tensor& matrix : visitors(frozen(true), nn::Called::often)) EXPECT_EQ(matrix.dtype(), DType::i8);
}

TEST(GpuPlacement, MatricesAreKeptOnceInTheTypeOfProducts) {
  LINNET_NEED_GPU();
  DiT model = frozen(false);
  model.set_product_dtype(DType::bf16);
  nn::place(model, the_gpu, DType::bf16, SIZE_MAX);
  for (const auto& [name, parameter] : nn::all_parameters(model))
    if (parameter->block_matrix) {
      EXPECT_EQ(parameter->value.dtype(), DType::bf16) << name;
    }
  const MemoryStats before = gpu().stats();
  generate(model, {0}, {1}, {.steps = 2, .device = the_gpu});
  // Packed copies would be half of the parameters' 4 bytes.
  EXPECT_LT(gpu().stats().in_use, before.in_use + static_cast<size_t>(nn::count_parameters(model)));
}

// What makes the modulation of all blocks is multiplied in f32, as on the CPU, though its name tells of blocks.
TEST(GpuPlacement, WhatIsMultipliedInF32IsKeptSo) {
  LINNET_NEED_GPU();
  PixArt model(test::tiny_pixart());
  test::draw_all(model);
  model.set_product_dtype(DType::bf16);
  nn::freeze(model);
  nn::place(model, the_gpu, DType::bf16, 0);
  int visitors = 0;
  for (const auto& [name, parameter] : nn::all_parameters(model)) {
    visitors += !parameter->value.on_gpu();
    EXPECT_TRUE(parameter->value.on_gpu() || name.starts_with("blocks.")) << name;
    EXPECT_EQ(parameter->value.dtype(), parameter->value.on_gpu() ? DType::f32 : DType::bf16) << name;
  }
  EXPECT_GT(visitors, 0);
}

}  // namespace
}  // namespace linnet
