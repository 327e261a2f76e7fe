#include "ops/focused_map.h"
#include "gpu/support.h"

namespace linnet::ops::test {
namespace {

TEST(GpuOperations, FocusedMap) {
  LINNET_NEED_GPU();
  struct Size {
    int64_t batch, tokens, stride, width;
  };
  for (const Size& s :
       {Size{1, 1, 1, 1}, Size{2, 9, 7, 5}, Size{3, 7, 24, 12}, Size{1, 5, 300, 300}, Size{2, 3, 2100, 2060}})
    for (const auto activation : {FocusedActivation::relu, FocusedActivation::gelu}) {
      const Tensor x = random({s.batch, s.tokens, s.stride}, 1), scale = random({1, 1, s.width}, 2);
      const std::string name = fmt::format("{}x{}x{} width {} {}", s.batch, s.tokens, s.stride, s.width,
                                           activation == FocusedActivation::relu ? "relu" : "gelu");
      check_on_gpu(
          {.name = name, .inputs = {x, scale}, .typed = "t.", .operation = [=](const Inputs& in, DType) {
             return focused_map(in[0], in[1], {}, activation);
           }});
      check_on_gpu(
          {.name = name + " with positions",
           .inputs = {x, scale, random({1, s.tokens, s.width}, 3)},
           .typed = "t..",
           .operation = [=](const Inputs& in, DType) { return focused_map(in[0], in[1], in[2], activation); }});
    }
}

TEST(GpuOperations, FocusedMapFetchesWhatItLearned) {
  LINNET_NEED_GPU();
  const Tensor x = random({1, 3, 8}, 1), scale = random({1, 1, 8}, 2), positions = random({1, 3, 8}, 3);
  const Tensor there = focused_map(x.to(the_gpu), scale, positions, FocusedActivation::relu);
  EXPECT_LT(relative_error(there.host(), values_of(focused_map(x, scale, positions, FocusedActivation::relu))),
            1e-5);
}

}  // namespace
}  // namespace linnet::ops::test
