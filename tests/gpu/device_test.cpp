// The GPU's library and its memory, apart from what is computed.
#include <dlfcn.h>

#include <cstdlib>

#include "gpu/support.h"
#include "ops/matmul.h"

namespace linnet::ops::test {
namespace {

TEST(GpuLibrary, OfAnotherInterfaceIsRefused) {
  LINNET_NEED_GPU();
  const char* path = std::getenv("LINNET_CUDA_LIBRARY");
  if (path == nullptr) GTEST_SKIP() << "the library was found elsewhere";
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr);
  const auto entry = reinterpret_cast<bool (*)(int, GpuApi*, char*, size_t)>(dlsym(library, "linnet_open_gpu"));
  ASSERT_NE(entry, nullptr);
  GpuApi api{};
  api.version = gpu().version + 1;
  char problem[512] = "";
  EXPECT_FALSE(entry(0, &api, problem, sizeof problem));
  EXPECT_NE(std::string(problem).find("another version"), std::string::npos) << problem;
  EXPECT_EQ(api.kernels, nullptr);
  dlclose(library);
}

TEST(GpuDevice, ProductsAreOfTheTypeThatItsTensorCoresKnow) {
  LINNET_NEED_GPU();
  const bool has_bf16 = gpu().info.architecture >= 80;
  EXPECT_EQ(fastest_product_dtype(the_gpu), has_bf16 ? DType::bf16 : DType::f16);
  EXPECT_EQ(fastest_wide_product_dtype(the_gpu), has_bf16 ? DType::bf16 : DType::f32);
  EXPECT_EQ(product_dtype_from_name("auto", the_gpu), fastest_product_dtype(the_gpu));
}

TEST(GpuMemory, WhatALimitHasNoRoomForIsASentence) {
  LINNET_NEED_GPU();
  const GpuApi& api = gpu();
  const Shape large{int64_t{64} << 20};  // 256 MiB
  for (const size_t limit :
       {size_t{1}, api.stats().in_use + (size_t{1} << 20)}) {  // the first lies below what is in use
    api.release_cached();                                      // what other tests left
    api.limit(limit);
    try {
      Tensor::empty(large, DType::f32, the_gpu);
      ADD_FAILURE() << "there was room";
    } catch (const OutOfMemory& error) {
      const std::string sentence = error.what();
      EXPECT_TRUE(sentence.starts_with("the GPU is out of memory: 256.0 MiB more wanted, ")) << sentence;
      EXPECT_NE(sentence.find("that --memory allows"), std::string::npos) << sentence;
    }
    api.limit(0);
  }
  EXPECT_EQ(Tensor::empty(large, DType::f32, the_gpu).numel(), large.numel());
}

}  // namespace
}  // namespace linnet::ops::test
