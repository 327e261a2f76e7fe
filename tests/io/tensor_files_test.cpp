// Models in several files with an index look like models in one.
#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

void write_index(const std::filesystem::path& path, const std::string& text) {
  write_file_atomically(path, [&](std::FILE* file) { write_bytes(file, text.data(), text.size()); });
}

void write_two_shards(const TemporaryFolder& folder) {
  write_safetensors(folder / "m-1.safetensors",
                    {{"a", Tensor::from<float>({1})}, {"b", Tensor::from<float>({2, 2})}}, {{"format", "pt"}});
  write_safetensors(folder / "m-2.safetensors",
                    {{"c", Tensor::from<float>({3})}, {"unlisted", Tensor::from<float>({4})}}, {{"step", "7"}});
}

TEST(TensorFiles, OpensASingleFile) {
  const TemporaryFolder folder;
  write_two_shards(folder);
  const TensorFiles files = TensorFiles::open(folder / "m-1.safetensors");
  EXPECT_EQ(files.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(files.tensor("b").data<float>()[1], 2.0f);
  EXPECT_EQ(files.metadata().at("format"), "pt");
}

TEST(TensorFiles, OpensShardsThroughTheirIndex) {
  const TemporaryFolder folder;
  write_two_shards(folder);
  write_index(folder / "model.safetensors.index.json",
              R"({"metadata":{"total_size":16,"x":[{"weight_map":1}]},"weight_map":{)"
              R"("c":"m-2.safetensors","a":"m-1.safetensors","b":"m-1.safetensors"},"later":null})");
  const TensorFiles files = TensorFiles::open(folder / "model.safetensors.index.json");
  EXPECT_EQ(files.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(files.tensor("c").data<float>()[0], 3.0f);
  EXPECT_EQ(files.entry("b").shape, (Shape{2}));
  EXPECT_FALSE(files.contains("unlisted"));
  EXPECT_THROW((void)files.tensor("unlisted"), Error);
  EXPECT_EQ(files.metadata().size(), 2u);
}

TEST(TensorFiles, SaysWhichShardLacksATensor) {
  const TemporaryFolder folder;
  write_two_shards(folder);
  write_index(folder / "i.json", R"({"weight_map":{"c":"m-1.safetensors"}})");
  try {
    TensorFiles::open(folder / "i.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(),
              (folder / "i.json").string() + ": tensor 'c' is not in m-1.safetensors as it should be");
  }
}

TEST(TensorFiles, SaysWhichShardIsMissing) {
  const TemporaryFolder folder;
  write_index(folder / "i.json", R"({"weight_map":{"c":"m-9.safetensors"}})");
  try {
    TensorFiles::open(folder / "i.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(),
              "cannot open " + (folder / "m-9.safetensors").string() + ": No such file or directory");
  }
}

TEST(TensorFiles, NeverReachesOutsideTheIndexsFolder) {
  for (const std::string name : {"../x", "/x", "a/b", "..", ".", "", R"(a\\b)", R"(a\u0000)"})
    EXPECT_THROW(parse_safetensors_index(R"({"weight_map":{"w":")" + name + "\"}}", "i.json"), Error) << name;
}

TEST(TensorFiles, ReadsAnIndexInLinearSpaceHoweverDeepTheRestIs) {
  std::string text =
      R"({"x":)" + std::string(100'000, '[') + std::string(100'000, ']') + R"(,"weight_map":{}})";
  EXPECT_TRUE(parse_safetensors_index(text, "i.json").empty());
}

TEST(TensorFiles, RefusesAnIndexOfMoreTensorsThanAnyModelHas) {
  std::string text = R"({"weight_map":{)";
  for (int i = 0; i <= 100'000; ++i) text += '"' + std::to_string(i) + R"(":"x",)";
  test::expect_refused("i.json: the index names more than 100000 tensors",
                       [&] { parse_safetensors_index(text, "i.json"); });
}

}  // namespace
}  // namespace linnet
