// What oneDNN throws reaches a caller as an error of Linnet's.
#include "ops/onednn.h"

#include "ops/support.h"

namespace linnet::ops::test {
namespace {

using onednn::memory;

TEST(OneDnn, SaysThatMemoryIsMissing) {
  EXPECT_THROW(onednn::translated([] { throw dnnl::error(dnnl_out_of_memory, ""); }), OutOfMemory);
  EXPECT_THROW(onednn::translated([] { throw std::bad_alloc(); }), OutOfMemory);
}

TEST(OneDnn, SaysWhatItRefuses) {
  const auto matrix = [](memory::data_type type) { return memory::desc({2, 2}, type, memory::format_tag::ab); };
  const memory::desc floats = matrix(memory::data_type::f32), integers = matrix(memory::data_type::s32);
  EXPECT_EQ(error_of([&] {
              onednn::make_descriptor(floats, integers, {}, floats, {});
            }).find("oneDNN cannot do on this processor what was asked of it: "),
            0u);
}

// Also before any work: what a view's own memory is missing for, or what has no layout yet.
TEST(OneDnn, SaysThatAViewCannotBeMade) {
  const memory::desc open({2, 2}, memory::data_type::f32, memory::format_tag::any);
  float values[4] = {};
  EXPECT_EQ(error_of([&] { onednn::wrap(open, values); }).find("oneDNN cannot do on this processor"), 0u);
}

TEST(OneDnn, LetsOtherErrorsPass) {
  EXPECT_EQ(error_of([] { onednn::translated([] { fail("stop"); }); }), "stop");
}

}  // namespace
}  // namespace linnet::ops::test
