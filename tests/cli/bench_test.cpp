// linnet bench refuses what is wrong with one sentence, before anything is measured.
#include "cli/command.h"

namespace linnet::test {
namespace {

void expect_refused(const Arguments& arguments, int code, const std::string& sentence) {
  Arguments all = {"bench"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const Result result = run(all);
  EXPECT_TRUE(failed(result, code, sentence));
  EXPECT_EQ(result.out, "");
}

TEST(Bench, AnUnknownModelIsRefused) {
  expect_refused({"model", "--model", "LiT-Z/2"}, 2, "there is no model");
  expect_refused({"train", "--teacher", "DiT-Z/2"}, 2, "there is no model");
  expect_refused({"load", "none.pt"}, 1, "cannot open none.pt");
}

TEST(Bench, ImpossibleShapesAreRefused) {
  expect_refused({"model", "--size", "250"}, 2, "a picture of 250x250 pixels does not divide");
  expect_refused({"attention", "--sizes", "100"}, 2, "a picture of 100x100 pixels does not divide");
  expect_refused({"heads", "--models", "S", "--heads", "7"}, 2, "7 heads cannot share S's width of 384 evenly");
  expect_refused({"attention", "--width", "100"}, 2, "no published model is 100 wide");
  expect_refused({"vae", "--size", "100"}, 2, "the autoencoder takes pictures whose side is a multiple of 8");
  expect_refused({"vae", "--memory", "4T"}, 2, "an amount of memory is a number such as");
}

TEST(Bench, WhatAVerbDoesNotDoOnAGpuIsRefused) {
  expect_refused({"load", "builtin", "--device", "cuda"}, 2, "\"linnet bench load\" has no option --device");
  expect_refused({"train", "--dtype", "f16", "--device", "cuda"}, 2, "--dtype");
}

TEST(Bench, AGpusTypesAreRefusedOnTheCpu) {
  for (const char* dtype : {"tf32", "f16"})
    expect_refused({"model", "--dtype", dtype}, 2, "a CPU has f32, bf16 and int8");
}

}  // namespace
}  // namespace linnet::test
