// The kernels that tensors themselves need.
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

template <class From, class To>
__global__ void convert_all(const From* from, To* to, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) assign(to[i], to_float(from[i]));
}

template <class T>
__global__ void fill_all(T* to, float value, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) assign(to[i], value);
}

template <class A, class B, class Sum>
__global__ void add_all(const A* a, const B* b, Sum* sum, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += thread_count()) assign(sum[i], to_float(a[i]) + to_float(b[i]));
}

void convert(View from, View to, int64_t n) {
  with_float(to.dtype, [&](auto* target) {
    using To = Pointee<decltype(target)>;
    if (from.dtype == DType::f64)
      return launch_over(n, convert_all<double, To>, from.as<double>(), to.as<To>(), n);
    with_float(from.dtype, [&](auto* source) {
      using From = Pointee<decltype(source)>;
      launch_over(n, convert_all<From, To>, from.as<From>(), to.as<To>(), n);
    });
  });
}

void fill_with(View to, float value, int64_t n) {
  with_float(to.dtype, [&](auto* type) {
    using T = Pointee<decltype(type)>;
    launch_over(n, fill_all<T>, to.as<T>(), value, n);
  });
}

void add(View a, View b, View sum, int64_t n) {
  with_float(a.dtype, [&](auto* left) {
    with_float(b.dtype, [&](auto* right) {
      with_float(sum.dtype, [&](auto* target) {
        using A = Pointee<decltype(left)>;
        using B = Pointee<decltype(right)>;
        using Sum = Pointee<decltype(target)>;
        launch_over(n, add_all<A, B, Sum>, a.as<A>(), b.as<B>(), sum.as<Sum>(), n);
      });
    });
  });
}

}  // namespace

void fill_tensor_kernels(GpuApi& api) {
  api.convert = convert;
  api.fill = fill_with;
  api.add = add;
}

}  // namespace linnet::cuda
