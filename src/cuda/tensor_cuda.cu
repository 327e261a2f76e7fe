// The kernels that tensors themselves need.
#include "cuda/elementwise.h"
#include "cuda/kernels.h"

namespace linnet::cuda {
namespace {

struct Same {
  __device__ float operator()(float x) const { return x; }
};

struct Constant {
  float value;
  __device__ float operator()() const { return value; }
};

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

void convert(View from, View to, int64_t n) {
  with_float(to.dtype, [&](auto* target) {
    using To = Pointee<decltype(target)>;
    if (from.dtype == DType::f64) return map(Same{}, n, to.as<To>(), from.as<double>());
    with_float(from.dtype, [&](auto* source) {
      using From = Pointee<decltype(source)>;
      map(Same{}, n, to.as<To>(), from.as<From>());
    });
  });
}

void fill_with(View to, float value, int64_t n) {
  with_float(to.dtype, [&](auto* type) { map(Constant{value}, n, to.as<Pointee<decltype(type)>>()); });
}

void add(View a, View b, View sum, int64_t n) {
  with_float(a.dtype, [&](auto* left) {
    with_float(b.dtype, [&](auto* right) {
      with_float(sum.dtype, [&](auto* target) {
        using A = Pointee<decltype(left)>;
        using B = Pointee<decltype(right)>;
        map(Sum{}, n, sum.as<Pointee<decltype(target)>>(), a.as<A>(), b.as<B>());
      });
    });
  });
}

#ifndef LINNET_CUDA_EMULATED
// Only to be asked about.
__global__ void probe() {}
#endif

}  // namespace

#ifndef LINNET_CUDA_EMULATED
int architecture_of_kernels() {
  static const int architecture = [] {
    cudaFuncAttributes attributes{};
    must(cudaFuncGetAttributes(&attributes, probe), "asking what its kernels were built for");
    return attributes.ptxVersion;  // which __CUDA_ARCH__ said when they were compiled
  }();
  return architecture;
}
bool has_group_products() { return architecture_of_kernels() == 90 && architecture_of_card() == 90; }
#endif

void fill_tensor_kernels(GpuApi& api) {
  api.convert = convert;
  api.fill = fill_with;
  api.add = add;
}

}  // namespace linnet::cuda
