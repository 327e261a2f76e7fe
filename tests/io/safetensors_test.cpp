// Reading and writing safetensors files: what is read and written, the format library's own bytes, and
// refusals.
#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path data_folder = fs::path(LINNET_TEST_DATA) / "safetensors";

// A file in memory: the length, the header, and this many bytes 0, 1, 2, ... of data.
std::string file_with(const std::string& header, size_t data_bytes = 0) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>((header.size() >> (8 * i)) & 0xff);
  file += header;
  for (size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

SafetensorsFile parse(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return SafetensorsFile::from_memory(std::as_bytes(std::span(*owner)), owner, "test.safetensors");
}

// The sentence that refuses a file with this header.
std::string refusal(const std::string& header, size_t data_bytes = 0) {
  try {
    parse(file_with(header, data_bytes));
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

void expect_says(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

bool is_one_sentence(const std::string& text) {
  return !text.empty() && text.size() < 1000 &&
         std::ranges::none_of(text, [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7f; });
}

std::string bytes_of(const fs::path& path) { return read_text_file(path, 1 << 20); }

NamedTensors some_tensors() {
  return {{"b", Tensor::from<float>({1, 2, 3, -4, 5.5f, 6}).reshape({2, 3})},
          {"a", Tensor::from<float>({7})},
          {"bytes", Tensor::from<uint8_t>({1, 2, 255})},
          {"signed", Tensor::from<int8_t>({-128, 127, 0})},
          {"half", Tensor::from<float>({0.5f, -2}).to(DType::f16)},
          {"brain", Tensor::from<float>({0.5f, -2, 3}).to(DType::bf16)},
          {"count", Tensor::from<int64_t>({int64_t{1} << 40})},
          {"ids", Tensor::from<int32_t>({-1, 2})},
          {"double", Tensor::from<double>({0.1})},
          {"scalar", Tensor::from<float>({42}).reshape({})},
          {"nothing", Tensor::empty({0, 3})}};
}

void expect_same(const Tensor& expected, const Tensor& found) {
  EXPECT_EQ(expected.dtype(), found.dtype());
  EXPECT_EQ(expected.shape(), found.shape());
  EXPECT_EQ(std::memcmp(expected.raw(), found.raw(), expected.bytes()), 0);
}

TEST(Safetensors, ReadsWhatItWrote) {
  const TemporaryFolder folder;
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"note", "quote \" newline \n ü"}};
  write_safetensors(folder / "x.safetensors", some_tensors(), metadata);
  const SafetensorsFile file = SafetensorsFile::open(folder / "x.safetensors");
  EXPECT_EQ(file.metadata(), metadata);
  EXPECT_EQ(file.names().size(), some_tensors().size());
  for (const auto& [name, tensor] : some_tensors()) expect_same(tensor, file.tensor(name));
}

TEST(Safetensors, OrdersByAlignmentThenNameSoThatAllDataAreAligned) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", some_tensors());
  const SafetensorsFile file = SafetensorsFile::open(folder / "x.safetensors");
  const std::vector<std::string> order{"count", "double", "a",    "b",      "nothing", "scalar",
                                       "ids",   "brain",  "half", "signed", "bytes"};
  std::vector<std::string> found = file.names();
  // An empty tensor lies where its neighbour does; which comes first means nothing.
  std::erase(found, "nothing");
  std::vector<std::string> expected = order;
  std::erase(expected, "nothing");
  EXPECT_EQ(found, expected);
  for (const std::string& name : found) {
    const Tensor tensor = file.tensor(name);
    EXPECT_TRUE(tensor.read_only());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.raw()) % size_of(tensor.dtype()), 0u);
  }
}

TEST(Safetensors, WritesTheSameBytesWhateverTheOrder) {
  const TemporaryFolder folder;
  NamedTensors tensors = some_tensors();
  write_safetensors(folder / "x", tensors, {{"a", "1"}, {"b", "2"}});
  std::ranges::reverse(tensors);
  write_safetensors(folder / "y", tensors, {{"b", "2"}, {"a", "1"}});
  EXPECT_EQ(bytes_of(folder / "x"), bytes_of(folder / "y"));
}

TEST(Safetensors, WritesByteForByteAsTheFormatsOwnLibrary) {
  const TemporaryFolder folder;
  const SafetensorsFile theirs = SafetensorsFile::open(data_folder / "python.safetensors");
  NamedTensors tensors;
  for (const std::string& name : theirs.names()) tensors.emplace_back(name, theirs.tensor(name));
  write_safetensors(folder / "ours.safetensors", tensors, theirs.metadata());
  EXPECT_EQ(bytes_of(folder / "ours.safetensors"), bytes_of(data_folder / "python.safetensors"));
}

TEST(Safetensors, ReadsTheFormatsOwnLibrarysFile) {
  const SafetensorsFile file = SafetensorsFile::open(data_folder / "python.safetensors");
  EXPECT_EQ(file.metadata().at("made by"), "safetensors");
  const Tensor weight = file.tensor("blocks.0.attn.qkv.weight");
  EXPECT_EQ(weight.shape(), (Shape{2, 3}));
  EXPECT_EQ(weight.data<float>()[5], 2.5f);
  EXPECT_EQ(static_cast<float>(file.tensor("brain").data<bfloat16>()[1]), -1.5f);
  EXPECT_EQ(static_cast<float>(file.tensor("half").data<float16>()[0]), 0.25f);
  EXPECT_EQ(file.tensor("count").data<int64_t>()[0], int64_t{1} << 40);
  EXPECT_EQ(file.tensor("grün").data<uint8_t>()[2], 255);
}

TEST(Safetensors, TensorsOutliveTheFileThatTheyCameFrom) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x", some_tensors());
  const Tensor tensor = SafetensorsFile::open(folder / "x").tensor("b").rows(1, 2);
  EXPECT_EQ(tensor.data<float>()[2], 6.0f);
}

TEST(Safetensors, MappedTensorsSurviveTheFilesReplacement) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x", some_tensors());
  const Tensor old = SafetensorsFile::open(folder / "x").tensor("a");
  write_safetensors(folder / "x", {{"a", Tensor::from<float>({8})}});
  EXPECT_EQ(old.data<float>()[0], 7.0f);
  EXPECT_EQ(SafetensorsFile::open(folder / "x").tensor("a").data<float>()[0], 8.0f);
}

TEST(Safetensors, CopiesMisalignedData) {
  // Without padding: the floats begin at an odd byte of the file.
  std::string header = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  if (header.size() % 2 == 0) header += ' ';
  const auto owner = std::make_shared<std::vector<double>>(16);
  const std::string file = file_with(header, 8);
  std::memcpy(owner->data(), file.data(), file.size());
  const auto parsed =
      SafetensorsFile::from_memory(std::as_bytes(std::span(*owner)).first(file.size()), owner, "x");
  const Tensor tensor = parsed.tensor("x");
  EXPECT_FALSE(tensor.read_only());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.raw()) % 4, 0u);
  EXPECT_EQ(std::memcmp(tensor.raw(), "\0\1\2\3\4\5\6\7", 8), 0);
}

TEST(Safetensors, AcceptsAnEmptyFileOfTheFormat) {
  EXPECT_TRUE(parse(file_with("{}")).names().empty());
  EXPECT_TRUE(parse(file_with(R"({"__metadata__":{}}  )")).metadata().empty());
}

TEST(Safetensors, RefusesElementTypesItLacksOnlyWhenAskedForThem) {
  const SafetensorsFile file = parse(file_with(R"({"old":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},)"
                                               R"("new":{"dtype":"F4","shape":[2],"data_offsets":[4,5]},)"
                                               R"("good":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
                                               5));
  EXPECT_EQ(file.tensor("good").data<uint8_t>()[0], 3);
  EXPECT_EQ(file.entry("old").dtype_name, "F8_E4M3");
  for (const auto& [name, type] : {std::pair{"old", "F8_E4M3"}, std::pair{"new", "F4"}}) {
    try {
      (void)file.tensor(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      expect_says(error.what(),
                  fmt::format("test.safetensors: tensor '{}' has the element type {}", name, type));
    }
  }
}

TEST(Safetensors, SaysWhichTensorIsMissing) {
  try {
    (void)parse(file_with("{}")).tensor("pos_embed");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "test.safetensors: there is no tensor 'pos_embed'");
  }
}

TEST(Safetensors, SaysWhatIsWrong) {
  const auto entry = [](const std::string& fields) { return R"({"w":{)" + fields + "}}"; };
  expect_says(refusal(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4),
              "tensor 'w' of shape (2) and type F32 does not fill the 4 bytes it claims");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 3),
              "cut off: tensor 'w' ends at byte 4 of the data, 3 are there");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 5),
              "last 1 bytes belong to no");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), 8),
              "bytes 0 to 4 of the data");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1])")), "lacks its data_offsets");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])")), "1 data_offsets where 2");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,1,2])")), "more than 2 numbers");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4])"), 4),
              "more than 6 numbers in its shape");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4),
              "a negative number in its");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), 4), "not whole");
  expect_says(refusal(entry(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])")), "2^60");
  expect_says(refusal(entry(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"), 4),
              "two fields 'dtype'");
  expect_says(refusal(R"({"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                      R"("w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})",
                      1),
              "tensor 'w' is there twice");
  expect_says(refusal(R"({"__metadata__":{"a":1}})"), "metadata 'a' is a number where a string");
  expect_says(refusal(R"({"__metadata__":{"a":"1","a":"2"}})"), "metadata key 'a' is there twice");
}

TEST(Safetensors, RefusesMoreTensorsThanAnyModelHas) {
  std::string members;
  for (int i = 0; i < 100'000; ++i)
    members += fmt::format(R"("{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},)", i);
  EXPECT_EQ(parse(file_with("{" + members.substr(0, members.size() - 1) + "}")).names().size(), 100'000u);
  // What follows is not looked at.
  EXPECT_EQ(refusal("{" + members + R"("one more":)"), "test.safetensors: it has more than 100000 tensors");
}

TEST(Safetensors, RefusesMoreMetadataThanAnyFileHas) {
  std::string members = R"({"__metadata__":{)";
  for (int i = 0; i <= 1'100'000; ++i) members += '"' + std::to_string(i) + R"(":"",)";
  EXPECT_EQ(refusal(members), "test.safetensors: it has more than 1100000 metadata");
}

TEST(Safetensors, EscapesNamesFromTheFileInMessages) {
  const std::string message = refusal(R"({"a\n\u001b[31m\u009b\u202e":{"dtype":"U8"}})");
  EXPECT_TRUE(is_one_sentence(message)) << message;
  expect_says(message, R"(tensor 'a\n\x1b[31m\xc2\x9b\xe2\x80\xae' lacks)");
}

TEST(Safetensors, CutsLongNamesInMessages) {
  EXPECT_LT(refusal(R"({")" + std::string(1'000'000, 'x') + R"(":{}})").size(), 400u);
}

TEST(Safetensors, RefusesDeepNestingAtOnce) {
  const std::string deep(1'000'000, '[');
  expect_says(refusal(R"({"w":)" + deep), "'w' is a list where an object");
  expect_says(refusal(R"({"w":{"shape":)" + deep), "a list in its shape");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  expect_says(refusal(objects), "unknown field 'a'");
}

TEST(Safetensors, RefusesEveryPrefixOfAGoodFile) {
  const std::string good = bytes_of(data_folder / "python.safetensors");
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_THROW(parse(good.substr(0, length)), Error) << length;
}

TEST(Safetensors, RefusesOrReadsAFileWithAnyByteChanged) {
  const std::string good = bytes_of(data_folder / "python.safetensors");
  for (size_t i = 0; i < good.size(); ++i) {
    for (const uint8_t flip : {0x01, 0x10, 0x80, 0xff}) {
      std::string changed = good;
      changed[i] = static_cast<char>(static_cast<uint8_t>(changed[i]) ^ flip);
      try {
        const SafetensorsFile file = parse(changed);
        for (const std::string& name : file.names()) (void)file.tensor(name).clone();
      } catch (const Error& error) {
        EXPECT_TRUE(is_one_sentence(error.what())) << error.what();
      }
    }
  }
}

TEST(Safetensors, RefusesEveryBrokenFileWithOneSentence) {
  int count = 0;
  for (const auto& item : fs::directory_iterator(data_folder / "broken")) {
    ++count;
    try {
      (void)TensorFiles::open(item.path());
      ADD_FAILURE() << item.path() << " was accepted";
    } catch (const Error& error) {
      EXPECT_TRUE(is_one_sentence(error.what())) << error.what();
      expect_says(error.what(), item.path().filename().string());
    }
  }
  EXPECT_GT(count, 40);
}

TEST(Safetensors, WritesOneTensorAfterTheOtherAndKeepsNone) {
  const TemporaryFolder folder;
  std::vector<std::weak_ptr<int>> seen;
  const auto read = [&] {
    for (const auto& earlier : seen) EXPECT_TRUE(earlier.expired());
    static constexpr float values[] = {1, 2};
    const auto owner = std::make_shared<int>();
    seen.push_back(owner);
    return Tensor::borrow(values, {2}, DType::f32, owner);
  };
  write_safetensors(folder / "x",
                    std::vector<TensorToWrite>{{"a", DType::f32, {2}, read}, {"b", DType::f32, {2}, read}});
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_EQ(SafetensorsFile::open(folder / "x").tensor("b").data<float>()[1], 2.0f);
}

TEST(Safetensors, RefusesToWriteATensorThatIsNotWhatItsHeaderSays) {
  const TemporaryFolder folder;
  for (const Tensor& wrong : {Tensor::zeros({3}), Tensor::zeros({2}, DType::bf16), Tensor()})
    expect_says(message_of([&] {
                  write_safetensors(folder / "x",
                                    std::vector<TensorToWrite>{{"a", DType::f32, {2}, [&] { return wrong; }}});
                }),
                "tensor 'a' is not the f32 of shape (2)");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Safetensors, RefusesToWriteWhatCannotBeRead) {
  const TemporaryFolder folder;
  const Tensor x = Tensor::from<float>({1});
  EXPECT_THROW(write_safetensors(folder / "x", {{"a", x}, {"a", x}}), Error);
  EXPECT_THROW(write_safetensors(folder / "x", {{"__metadata__", x}}), Error);
  EXPECT_THROW(write_safetensors(folder / "x", {{"a", Tensor()}}), Error);
  EXPECT_THROW(write_safetensors(folder / "x", {{"a\xff", x}}), Error);
  EXPECT_THROW(write_safetensors(folder / "x", {{"a", x}}, {{"k", "\xc3"}}), Error);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace linnet
