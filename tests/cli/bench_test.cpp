// linnet bench refuses what is wrong with one sentence, before anything is measured; and what it reports of a
// GPU.
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "cli/gpu.h"
#include "cli/small_model.h"
#include "support/sanitizers.h"

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

TEST(Bench, WhatItWritesIsLookedAtBeforeItMeasures) {
  const TemporaryFolder folder;
  const std::string model = write_small_model(folder / "small.safetensors"), before = contents(model);
  expect_refused({"load", model, "--json", model}, 2, "it is the file that is read");
  EXPECT_EQ(contents(model), before);
  expect_refused({"attention", "--json", "/nowhere/a.json"}, 1, "/nowhere");
  const std::string one = folder / "one";
  expect_refused({"heads", "--json", one, "--plot", one}, 2, "--json and --plot would write one file");
}

TEST(Bench, OperationsCanBeChosenByName) {
  const TemporaryFolder folder;
  const Arguments few = {"bench", "ops",     "--models", "LiT-S/2",  "--size",
                         "32",    "--batch", "1",        "--repeat", "1"};
  ASSERT_TRUE(succeeded(run(with(few, {"--only", "gated", "--seconds", "0.001", "--json", folder / "r"}))));
  const auto json = nlohmann::json::parse(contents(folder / "r"));
  std::vector<std::string> names;
  for (const auto& row : json.at("facts").at("operations")) names.push_back(row.at("operation"));
  EXPECT_EQ(names, (std::vector<std::string>{"gated residual", "gated residual"}));
  expect_refused({"ops", "--only", "nothing"}, 2, "no operation has \"nothing\" in its name; there are: ");
}

TEST(Bench, PicturesThatAreTooLargeAreRefused) {
  const std::string sentence = "pictures of 1048576x1048576 pixels are too large";
  expect_refused({"attention", "--sizes", "64,1048576", "--mixers", "lit"}, 2, sentence);
  for (const char* verb : {"model", "heads", "ops", "train"})
    expect_refused({verb, "--size", "1048576"}, 2, sentence);
  expect_refused({"vae", "--size", "1048576"}, 2, "at most 8192, not 1048576");
}

TEST(Bench, TooLargeABatchIsOutOfMemory) {
  if (with_address_sanitizer || with_thread_sanitizer) GTEST_SKIP() << "sanitizers take more addresses";
  const auto limited = [] {
    const rlimit limit{6'000'000'000, 6'000'000'000};
    ::setrlimit(RLIMIT_AS, &limit);
  };
  for (const char* dtype : {"f32", "int8"})
    EXPECT_TRUE(failed(run({"bench", "model", "--model", "LiT-S/2", "--batch", "65536", "--dtype", dtype},
                           {.in_child = limited}),
                       1, "out of memory"))
        << dtype;
}

TEST(Bench, WhatAVerbDoesNotDoOnAGpuIsRefused) {
  expect_refused({"load", "builtin", "--device", "cuda"}, 2, "\"linnet bench load\" has no option --device");
  expect_refused({"train", "--dtype", "f16", "--device", "cuda"}, 2, "--dtype");
}

TEST(Bench, AGpusTypesAreRefusedOnTheCpu) {
  for (const char* dtype : {"tf32", "f16"})
    expect_refused({"model", "--dtype", dtype}, 2, "a CPU has f32, bf16 and int8");
}

// A measurement of a verb, and the ceiling that it is held against.
struct Measured {
  Arguments arguments;
  std::string table, products;
};

class GpuBench : public GpuCommand {
 protected:
  void expect_ratios(const Measured& row) const {
    const Result result =
        on_gpu(with(with({"bench"}, row.arguments), {"--seconds", "0.001", "--repeat", "1", "--json", "r"}));
    ASSERT_TRUE(succeeded(result));
    EXPECT_NE(result.out.find(": plain loops, emulated GPU, "), std::string::npos) << result.out;
    EXPECT_NE(result.out.find(row.products + " products"), std::string::npos) << result.out;
    const std::string ceiling = "cuBLASLt 128×128×128 " + row.products;
    const auto json = nlohmann::json::parse(bytes("r"));
    EXPECT_EQ(json.at("settings").at("dtype"), row.products);
    ASSERT_FALSE(json.at("measured").at(row.table).empty());
    for (const auto& measured : json.at("measured").at(row.table)) {
      if (measured.at("ratio").is_null()) continue;  // of the ceilings themselves
      EXPECT_GT(measured.at("ratio").get<double>(), 0) << measured;
      EXPECT_EQ(measured.value("ceiling", ceiling), ceiling);
    }
  }
};

TEST_F(GpuBench, EveryVerbMeasuresBesideTheCardsCeiling) {
  const Arguments small = {"--size", "16", "--batch", "1"};
  const Measured rows[] = {
      {with({"model", "--model", "DiT-S/2", "--dtype", "tf32"}, small), "forward", "tf32"},
      {with({"train", "--model", "DiT-S/2", "--dtype", "f32", "--no-breakdown"}, small), "step", "f32"},
      {with({"ops", "--models", "DiT-S/2"}, small), "ops", "bf16"},
      {with({"heads", "--models", "S", "--heads", "6"}, small), "heads", "bf16"},
      {{"attention", "--sizes", "16,32"}, "attention", "bf16"},
      {{"vae", "--size", "8", "--dtype", "f16"}, "decode", "f16"}};
  for (const Measured& row : rows) {
    SCOPED_TRACE(row.arguments[0]);
    expect_ratios(row);
  }
}

TEST_F(GpuBench, AnotherCardIsRefused) {
  EXPECT_TRUE(failed(run_in(folder_ / "cuda", {"bench", "attention", "--device", "cuda:1"}), 1,
                     "the only GPU of this machine is cuda:0"));
}

}  // namespace
}  // namespace linnet::test
