// What this processor multiplies, asked of the product itself. Without AVX-512 there are no products in bf16,
// without VNNI none in 8 bits: a test of them skips there, and one that walks over types leaves those out.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ops/int8_linear.h"

#define LINNET_NEED_BF16_PRODUCTS() \
  if (!linnet::ops::have_bf16_products()) GTEST_SKIP() << "not run: this processor has no products in bf16"

#define LINNET_NEED_INT8_PRODUCTS() \
  if (!linnet::ops::have_int8_products()) GTEST_SKIP() << "not run: this processor has no products in 8 bits"

namespace linnet::test {

/// The types of floats that products can be in here.
inline std::vector<DType> product_dtypes() {
  return ops::have_bf16_products() ? std::vector{DType::f32, DType::bf16} : std::vector{DType::f32};
}

/// The same as they are called on the command line and in a configuration.
inline std::vector<std::string> product_names() {
  std::vector<std::string> result;
  for (const DType dtype : product_dtypes()) result.emplace_back(name_of(dtype));
  return result;
}

}  // namespace linnet::test
