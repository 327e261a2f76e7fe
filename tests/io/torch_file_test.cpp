// Reading PyTorch's files: what PyTorch wrote, in both formats, and refusals. The files:
// tests/reference/make_torch_files.py
#include "io/torch_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "io/file.h"
#include "io/pickle.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path data_folder = fs::path(LINNET_TEST_DATA) / "torch";

std::vector<float> values_of(const TorchFile& file, const std::string& name) {
  const Tensor tensor = file.tensor(name).to(DType::f32);
  return {tensor.values<float>().begin(), tensor.values<float>().end()};
}

std::vector<float> count(size_t n, float first = 0) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

class TorchFiles : public testing::TestWithParam<const char*> {
 protected:
  TorchFile open(const char* name) const {
    return TorchFile::open(data_folder / (std::string(name) + GetParam()));
  }
};

TEST_P(TorchFiles, TensorsOfEveryTypeComeAsTheyWere) {
  const TorchFile file = open("state");
  EXPECT_EQ(file.names(),
            (std::vector<std::string>{"plain", "half", "brain", "double", "long", "short", "bool", "scalar",
                                      "empty", "parameter", "base", "transposed", "part"}));
  EXPECT_EQ(file.tensor("plain").shape(), (Shape{2, 3}));
  EXPECT_EQ(values_of(file, "plain"), count(6));
  EXPECT_EQ(file.tensor("half").dtype(), DType::f16);
  EXPECT_EQ(values_of(file, "half"), count(5));
  EXPECT_EQ(file.tensor("brain").dtype(), DType::bf16);
  EXPECT_EQ(values_of(file, "brain"), count(5));
  EXPECT_EQ(values_of(file, "double"), count(3));
  EXPECT_EQ(file.tensor("long").data<int64_t>()[2], 2);
  EXPECT_EQ(file.tensor("bool").data<uint8_t>()[0], 1);
  EXPECT_EQ(file.tensor("scalar").shape().rank(), 0);
  EXPECT_EQ(values_of(file, "scalar"), std::vector<float>{7});
  EXPECT_EQ(file.tensor("empty").shape(), (Shape{0, 3}));
  EXPECT_EQ(values_of(file, "parameter"), count(4));
}

TEST_P(TorchFiles, ViewsOfASharedStorageHaveTheirOwnOrder) {
  const TorchFile file = open("state");
  EXPECT_EQ(values_of(file, "base"), count(24));
  EXPECT_EQ(file.tensor("transposed").shape(), (Shape{6, 4}));
  std::vector<float> transposed;
  for (int column = 0; column < 6; ++column)
    for (int row = 0; row < 4; ++row) transposed.push_back(static_cast<float>(row * 6 + column));
  EXPECT_EQ(values_of(file, "transposed"), transposed);
  EXPECT_EQ(values_of(file, "part"), (std::vector<float>{8, 9, 10, 14, 15, 16}));
}

TEST_P(TorchFiles, AnElementTypeThatLinnetLacksIsNamed) {
  const TorchFile file = open("state");
  EXPECT_FALSE(file.entry("short").dtype.has_value());
  try {
    (void)file.tensor("short");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'short' has the element type short"), std::string::npos)
        << error.what();
  }
}

TEST_P(TorchFiles, DictionariesInDictionariesAreNamedByBothKeys) {
  const TorchFile file = open("nested");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"model/w", "ema/w"}));
  EXPECT_EQ(values_of(file, "model/w"), count(2));
  EXPECT_EQ(values_of(file, "ema/w"), count(2, 10));
}

INSTANTIATE_TEST_SUITE_P(Formats, TorchFiles, testing::Values(".pt", "-legacy.pt"), [](const auto& format) {
  return std::string(format.param) == ".pt" ? "zip" : "legacy";
});

TEST(TorchFile, DenseTensorsAreViewsOfTheFile) {
  const auto mapped = MappedFile::open(data_folder / "state.pt");
  const TorchFile file = TorchFile::from_memory(mapped->bytes(), mapped, "state.pt");
  const auto* const at = static_cast<const std::byte*>(file.tensor("plain").raw());
  EXPECT_TRUE(at >= mapped->data() && at < mapped->data() + mapped->size());
  EXPECT_TRUE(file.tensor("plain").read_only());
}

class BrokenTorchFile : public testing::TestWithParam<std::string> {};

TEST_P(BrokenTorchFile, IsRefusedWithOneSentence) {
  try {
    const TorchFile file = TorchFile::open(data_folder / "broken" / (GetParam() + ".pt"));
    for (const std::string& name : file.names()) (void)file.tensor(name);
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(GetParam() + ".pt: "), std::string::npos) << text;
    EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0x20; }))
        << text;
    RecordProperty("sentence", text);
  }
}

std::vector<std::string> broken_files() {
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(data_folder / "broken"))
    names.push_back(file.path().stem().string());
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, BrokenTorchFile, testing::ValuesIn(broken_files()),
                         [](const auto& file) { return file.param; });

std::string refusal(const char* name) {
  try {
    TorchFile::open(data_folder / "broken" / name);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

// Values take a hundred times the bytes that make them: a small file must not fill the memory.
TEST(Pickle, OfTooManyValuesIsRefused) {
  const std::string text = "\x80\x02" + std::string(4'000'001, 'N') + ".";
  ByteReader reader(std::as_bytes(std::span(text)), "many.pt");
  EXPECT_THROW(Pickle::read(reader, "many.pt"), Error);
}

TEST(TorchFile, SaysWhatAFileWantedToCall) {
  EXPECT_NE(refusal("system_call.pt").find("it wants to call posix.system"), std::string::npos)
      << refusal("system_call.pt");
  EXPECT_NE(refusal("eval_call.pt").find("it wants to call builtins.eval"), std::string::npos)
      << refusal("eval_call.pt");
}

}  // namespace
}  // namespace linnet
