// Weights by name: what is asked of all of them, whatever file they come from.
#include "store/weights.h"

#include <fstream>

#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using test::refusal;

Weights some() {
  Weights weights("file");
  const auto read = [] { return Tensor(); };
  weights.add({"outer.inner.weight", "f32", DType::f32, {2, 3}, read});
  weights.add({"outer.inner.scale", "bf16", DType::bf16, {5}, read});
  weights.add({"strange", "F8_E4M3", std::nullopt, {7}, read});
  return weights;
}

TEST(Weights, CountTheBytesOfKnownTypes) { EXPECT_EQ(some().bytes(), 2u * 3 * 4 + 5 * 2); }

TEST(Weights, SayWhatStandsBeforeAName) {
  EXPECT_EQ(some().prefix_before("inner.weight"), "outer.");
  EXPECT_EQ(some().prefix_before("strange"), "");
  EXPECT_EQ(some().prefix_before("bias"), std::nullopt);
}

TEST(Weights, AreNamedOnceInASentence) {
  EXPECT_EQ(some().naming_source([] { return 5; }), 5);
  EXPECT_EQ(refusal([] { some().naming_source([] { fail("wrong"); }); }), "file: wrong");
  EXPECT_EQ(refusal([] { some().naming_source([] { some().item("a"); }); }), "file: tensor 'a' is missing");
  EXPECT_EQ(refusal([] { some().naming_source([] { fail("files are wrong"); }); }), "file: files are wrong");
  EXPECT_THROW(some().naming_source([] { throw OutOfMemory("no memory"); }), OutOfMemory);
}

TEST(Weights, OfAnIndexThatNamesItselfAreRefused) {
  const TemporaryFolder folder;
  const std::string name = "pytorch_model.bin.index.json";
  std::ofstream(folder / name) << fmt::format(R"({{"weight_map": {{"w": "{}"}}}})", name);
  EXPECT_NE(refusal([&] { Weights::open(folder.path()); }).find(name + ": "), std::string::npos);
}

}  // namespace
}  // namespace linnet
