// That the tests of operations really run the kernels of the instruction set that they ask for.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/instruction_set_test.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {
namespace {

int64_t own_target() { return HWY_TARGET; }

}  // namespace
}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "ops/support.h"

namespace linnet::ops {

HWY_EXPORT(own_target);

namespace test {
namespace {

TEST(InstructionSets, EachOneRunsItsOwnKernels) {
  std::vector<int64_t> seen;
  each_instruction_set([&] { seen.push_back(HWY_DYNAMIC_DISPATCH(own_target)()); });
  EXPECT_EQ(seen, instruction_sets());
  for (const int64_t target : seen) RecordProperty(hwy::TargetName(target), "tested");
}

TEST(InstructionSets, TheBestOneIsBackAfterwards) {
  const int64_t before = HWY_DYNAMIC_DISPATCH(own_target)();
  each_instruction_set([] {});
  EXPECT_EQ(HWY_DYNAMIC_DISPATCH(own_target)(), before);
  EXPECT_EQ(before, instruction_sets().front());
}

}  // namespace
}  // namespace test
}  // namespace linnet::ops
#endif
