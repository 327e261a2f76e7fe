// Neighbours read and written at once, at addresses that are aligned to so many.
#pragma once

#include "cuda/runtime.h"

namespace linnet::cuda {

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* at) {
  return *static_cast<const Pack<T, N>*>(static_cast<const void*>(at));
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* at, const Pack<T, N>& values) {
  *static_cast<Pack<T, N>*>(static_cast<void*>(at)) = values;
}

}  // namespace linnet::cuda
