// The two functions that the library offers, and the table of kernels behind them.
#include <cstring>
#include <exception>

#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/library.h"

namespace linnet::cuda {
namespace {

template <class... Tables>
void fill_each(Tables&... tables) {
  (fill(tables), ...);
}

const ops::GpuKernels& all_kernels() {
  static const ops::GpuKernels table = [] {
    ops::GpuKernels t{};
    fill_each(t.activation, t.arrange, t.reduce, t.norm, t.softmax, t.linear_attention, t.focused_map,
              t.compress, t.product, t.picture, t.optimizer, t.combine, t.loss, t.cross_entropy);
    return t;
  }();
  return table;
}

}  // namespace
}  // namespace linnet::cuda

extern "C" __attribute__((visibility("default"))) bool linnet_open_gpu(int index, linnet::GpuApi* api,
                                                                       char* problem, size_t room) {
  using namespace linnet;
  try {
    // What the program has room for is what its own version of the interface says.
    if (api->version != LINNET_GPU_INTERFACE) cuda::fail("the library is of another version of Linnet");
    cuda::open_device(index, *api);
    cuda::fill_tensor_kernels(*api);
    cuda::fill_team(*api);
    api->kernels = &cuda::all_kernels();
    return true;
  } catch (const std::exception& error) {
    std::strncpy(problem, error.what(), room - 1);
    return false;
  }
}

extern "C" __attribute__((visibility("default"))) bool linnet_has_gpu(int index, unsigned version) {
  try {
    return version == LINNET_GPU_INTERFACE && linnet::cuda::has_device(index);
  } catch (const std::exception&) {
    return false;
  }
}
