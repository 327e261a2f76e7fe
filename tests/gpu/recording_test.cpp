// Steps that are recorded and repeated (diffusion/recorded.h): what they give, and whose memory they use.
#include "diffusion/recorded.h"

#include "core/recording.h"
#include "gpu/support.h"
#include "ops/arrange.h"

namespace linnet {
namespace {

using ops::test::random;
using ops::test::relative_error;
using ops::test::the_gpu;
using ops::test::values_of;

Tensor times(int64_t t) { return Tensor::from(std::vector<int64_t>{t}); }

// Counts how often the model itself is called, and gives 2x plus a table that the CPU has.
struct Doubling {
  int calls = 0;
  Tensor table = random({2, 3}, 7);

  Tensor operator()(const Tensor& x) {
    ++calls;
    const Tensor twice = ops::add(x, x);  // given back within the recording
    return ops::add(twice, table.to(the_gpu));
  }
};

ops::test::Values expected_of(const Tensor& x, const Tensor& table) {
  return values_of(ops::add(ops::add(x, x), table));
}

TEST(GpuRecording, IsMadeOnceAndThenRepeated) {
  LINNET_NEED_GPU();
  Doubling doubling;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) { return doubling(x); });
  std::vector<Tensor> results;
  for (uint64_t step = 0; step < 5; ++step)
    results.push_back(model(random({2, 3}, step).to(the_gpu), times(5)));
  EXPECT_EQ(doubling.calls, 2);
  for (uint64_t step = 0; step < 5; ++step)  // each a tensor of its own
    EXPECT_LT(relative_error(results[step].host(), expected_of(random({2, 3}, step), doubling.table)), 1e-6);
}

TEST(GpuRecording, TimesAreReadByEveryStep) {
  LINNET_NEED_GPU();
  const Denoiser model = recorded([](const Tensor& x, const Tensor& t) {
    EXPECT_TRUE(t.on_gpu());
    return ops::add(x, t.to(DType::f32));
  });
  const Tensor x = random({1}, 1);
  for (int64_t t = 0; t < 5; ++t) {
    const float time = static_cast<float>(100 * t);
    const Tensor moved = model(x.to(the_gpu), Tensor::from(std::vector<float>{time})).host();
    EXPECT_FLOAT_EQ(moved.data<float>()[0], x.data<float>()[0] + time);
  }
}

TEST(GpuRecording, WhereNoneCanBeginTheModelIsCalled) {
  LINNET_NEED_GPU();
  Doubling doubling;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) { return doubling(x); });
  gpu().begin_recording();  // as if memory ended where it wants one of its own
  for (uint64_t step = 0; step < 3; ++step) (void)model(random({2, 3}, step).to(the_gpu), times(5).to(the_gpu));
  void* const outer = gpu().end_recording();
  if (outer) gpu().drop(outer);
  EXPECT_EQ(doubling.calls, 3);
  const Tensor after = model(random({2, 3}, 3).to(the_gpu), times(5)).host();
  EXPECT_LT(relative_error(after, expected_of(random({2, 3}, 3), doubling.table)), 1e-6);
}

TEST(GpuRecording, NothingIsRecordedWhereTheEnvironmentSaysSo) {
  LINNET_NEED_GPU();
  ::setenv("LINNET_RECORDING", "off", 1);
  Doubling doubling;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor& t) {
    EXPECT_TRUE(t.on_gpu());
    return doubling(x);
  });
  for (uint64_t step = 0; step < 4; ++step) {
    const Tensor doubled = model(random({2, 3}, step).to(the_gpu), times(5)).host();
    EXPECT_LT(relative_error(doubled, expected_of(random({2, 3}, step), doubling.table)), 1e-6);
  }
  ::unsetenv("LINNET_RECORDING");
  EXPECT_EQ(doubling.calls, 4);
}

TEST(GpuRecording, AnotherShapeIsRecordedAnew) {
  LINNET_NEED_GPU();
  int calls = 0;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) {
    ++calls;
    return ops::add(x, x);
  });
  for (const int64_t rows : {2, 2, 2, 5, 5, 5, 2}) {
    const Tensor x = random({rows, 3}, 1);
    EXPECT_LT(relative_error(model(x.to(the_gpu), times(1)).host(), values_of(ops::add(x, x))), 1e-6);
  }
  EXPECT_EQ(calls, 5);
}

TEST(GpuRecording, WhatCannotBeRecordedIsCalledEachTime) {
  LINNET_NEED_GPU();
  int calls = 0;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) {
    ++calls;
    return ops::add(x, x).host().to(the_gpu);
  });
  for (uint64_t step = 0; step < 4; ++step) {
    const Tensor x = random({2, 3}, step);
    EXPECT_LT(relative_error(model(x.to(the_gpu), times(1)).host(), values_of(ops::add(x, x))), 1e-6);
  }
  EXPECT_EQ(calls, 5);  // one of them the attempt
}

TEST(GpuRecording, AnErrorOfTheModelIsItsOwn) {
  LINNET_NEED_GPU();
  bool fails = false;
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) -> Tensor {
    if (fails) throw std::runtime_error("no more");
    return ops::add(x, x);
  });
  const Tensor x = random({2, 3}, 1).to(the_gpu);
  model(x, times(1));
  fails = true;
  EXPECT_THROW(model(x, times(1)), std::runtime_error);
  fails = false;
  for (int i = 0; i < 3; ++i)  // nothing is left of the attempt
    EXPECT_LT(relative_error(model(x, times(1)).host(), values_of(ops::add(x, x).host())), 1e-6);
}

TEST(GpuRecording, ItsBlocksAreItsOwnUntilItGoes) {
  LINNET_NEED_GPU();
  const size_t before = gpu().stats().in_use;
  {
    Doubling doubling;
    const Denoiser model = recorded([&](const Tensor& x, const Tensor&) { return doubling(x); });
    const Tensor x = random({2, 3}, 1).to(the_gpu);
    for (int step = 0; step < 2; ++step) model(x, times(1));
    // Others of the same sizes take no block that a replay writes to.
    std::vector<Tensor> others;
    for (uint64_t i = 0; i < 8; ++i) others.push_back(random({2, 3}, 10 + i).to(the_gpu));
    model(x, times(1));
    for (uint64_t i = 0; i < others.size(); ++i)
      EXPECT_TRUE(ops::test::same_bytes(others[i].host(), random({2, 3}, 10 + i)));
  }
  EXPECT_EQ(gpu().stats().in_use, before);
}

TEST(GpuRecording, WhatItReadsMayBeLetGoIfItIsKept) {
  LINNET_NEED_GPU();
  Tensor table = random({2, 3}, 5).to(the_gpu);
  const ops::test::Values values = values_of(table.host());
  const Denoiser model = recorded([&](const Tensor& x, const Tensor&) {
    keep_for_recording(table);
    return ops::add(x, table);
  });
  const Tensor x = Tensor::zeros({2, 3}, DType::f32, the_gpu);
  for (int step = 0; step < 2; ++step) model(x, times(1));
  table = {};
  const Tensor another = random({2, 3}, 6).to(the_gpu);  // which would take its place
  EXPECT_LT(relative_error(model(x, times(1)).host(), values), 1e-6);
}

}  // namespace
}  // namespace linnet
