#include "ops/activation.h"
#include "gpu/support.h"

namespace linnet::ops::test {
namespace {

TEST(GpuOperations, ActivationsStayFiniteFarOut) {
  LINNET_NEED_GPU();
  const Tensor far = Tensor::from<float>({-3e38f, -1e20f, -1e13f, 1e13f, 1e20f, 3e38f});
  check_on_gpu({.name = "gelu",
                .inputs = {far},
                .operation = [](const Inputs& in, DType) { return gelu_tanh(in[0]); },
                .types = {DType::f32}});
  check_on_gpu({.name = "silu",
                .inputs = {far},
                .operation = [](const Inputs& in, DType dtype) { return silu(in[0], dtype); },
                .types = {DType::f32}});
}

TEST(GpuOperations, Activations) {
  LINNET_NEED_GPU();
  for (const int64_t n : {1, 7, 255, 1033}) {
    check_on_gpu({.name = fmt::format("silu {}", n),
                  .inputs = {random({n}, 1)},
                  .operation = [](const Inputs& in, DType dtype) { return silu(in[0], dtype); }});
    check_on_gpu({.name = fmt::format("gelu {}", n),
                  .inputs = {random({n}, 2)},
                  .operation = [](const Inputs& in, DType) { return gelu_tanh(in[0]); }});
    check_on_gpu({.name = fmt::format("gated gelu {}", n),
                  .inputs = {random({n}, 3), random({n}, 4)},
                  .operation = [](const Inputs& in, DType) { return gated_gelu(in[0], in[1]); }});
  }
}

}  // namespace
}  // namespace linnet::ops::test
