// The fused optimiser step against AdamW's formula (Loshchilov & Hutter 2019, algorithm 2) over several steps.
#include "ops/adamw.h"
#include "ops/support.h"

namespace linnet::ops::test {
namespace {

struct State {
  Tensor value, mean, square, ema;
};

State fresh(int64_t n) {
  const Tensor value = random({n}, 1);
  return {value, Tensor::zeros({n}), Tensor::zeros({n}), value.clone()};
}

AdamWStep settings_of(int64_t step) { return {1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f, step, 0.99f}; }

const Tensor clip = Tensor::full({1}, 0.5f);

TEST(AdamW, FollowsItsFormula) {
  for (const int64_t n : {1, 3, 17, 65, 40000})
    each_instruction_set([&] {
      State s = fresh(n);
      Values value = values_of(s.value), mean(value.size()), square(value.size()), ema = value;
      for (int64_t step = 1; step <= 5; ++step) {
        const Tensor gradient = random({n}, static_cast<uint64_t>(step) + 10);
        adamw_step(settings_of(step), clip,
                   {{s.value, step == 3 ? Tensor() : gradient, s.mean, s.square, s.ema}});
        const Values g = values_of(gradient);
        for (size_t i = 0; i < value.size(); ++i) {
          const double gi = step == 3 ? 0.0 : 0.5 * g[i];
          mean[i] = 0.9 * mean[i] + 0.1 * gi;
          square[i] = 0.999 * square[i] + 0.001 * gi * gi;
          const double m = mean[i] / (1 - std::pow(0.9, step)), v = square[i] / (1 - std::pow(0.999, step));
          value[i] = value[i] * (1 - 1e-2 * 0.1) - 1e-2 * m / (std::sqrt(v) + 1e-8);
          ema[i] = 0.99 * ema[i] + 0.01 * value[i];
        }
      }
      EXPECT_LT(relative_error(s.value, value), 1e-4);
      EXPECT_LT(relative_error(s.mean, mean), 1e-4);
      EXPECT_LT(relative_error(s.square, square), 1e-4);
      EXPECT_LT(relative_error(s.ema, ema), 1e-4);
    });
}

TEST(AdamW, DoesNotDependOnTheNumberOfThreads) {
  const Tensor gradient = random({50001}, 2);
  each_instruction_set([&] {
    State one, s;
    for (const int count : {1, 2, 3}) {
      const Threads guard(count);
      s = fresh(50001);
      adamw_step(settings_of(1), clip, {{s.value, gradient, s.mean, s.square, s.ema}});
      if (count == 1) one = s;
      EXPECT_TRUE(same_bytes(one.value, s.value) && same_bytes(one.ema, s.ema)) << count;
    }
  });
}

TEST(AdamW, RefusesTensorsOfOtherSizes) {
  State s = fresh(8);
  EXPECT_NE(error_of([&] {
              adamw_step(settings_of(1), clip, {{s.value, random({7}, 2), s.mean, s.square, s.ema}});
            }).find("gradient of shape (7)"),
            std::string::npos);
  Tensor small = Tensor::zeros({7});
  EXPECT_NE(error_of([&] {
              adamw_step(settings_of(1), clip, {{s.value, {}, small, s.square, s.ema}});
            }).find("adamw_step"),
            std::string::npos);
}

}  // namespace
}  // namespace linnet::ops::test
