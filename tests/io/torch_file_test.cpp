// Reading PyTorch's files: what PyTorch wrote, in both formats, what is too large to be kept here, and
// refusals. The files: tests/reference/make_torch_files.py
#include "io/torch_file.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <algorithm>
#include <numeric>

#include "io/file.h"
#include "io/pickle.h"
#include "io/torch_bytes.h"
#include "support/temporary_folder.h"

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
  EXPECT_EQ(file.names(), (std::vector<std::string>{"model/w", "ema/w", "opt/exp_avg"}));
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

// Two storages, the first of 4.8 GB, nearly all of it a hole; what the tensors see is written into it.
struct Far {
  static constexpr int64_t count = 1'200'000'000, second = 1'100'000'003;

  static std::string pickle() {
    using namespace test::pickled;
    return whole("}(" + text("end") + tensor("0", count, count - 4, {2, 2}, {2, 1}) + text("apart") +
                 tensor("0", count, 3, {2}, {second - 3}) + text("after") + tensor("1", 3, 0, {3}, {1}) + "u");
  }
  static void fill(test::SparseFile& file, uint64_t begin) {
    const auto put = [&](int64_t element, float value) {
      file.put(begin + 4 * static_cast<uint64_t>(element), test::little_endian(value));
    };
    for (int i = 0; i < 4; ++i) put(count - 4 + i, static_cast<float>(i + 1));
    put(3, 5);
    put(second, 6);
  }
  static std::string after() {
    return test::little_endian(7.0f) + test::little_endian(8.0f) + test::little_endian(9.0f);
  }

  static void expect_read(const fs::path& path) {
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_GT(status.st_size, off_t{1} << 32);
    EXPECT_LT(status.st_blocks * 512, 1 << 20) << "the file was to be a hole";
    const TorchFile file = TorchFile::open(path);
    EXPECT_EQ(values_of(file, "end"), (std::vector<float>{1, 2, 3, 4}));
    EXPECT_EQ(values_of(file, "apart"), (std::vector<float>{5, 6}));
    EXPECT_EQ(values_of(file, "after"), (std::vector<float>{7, 8, 9}));
  }
};

TEST(TorchFile, BeyondFourGigabytesIsReadFromZip) {
  const TemporaryFolder folder;
  {
    test::SparseFile file(folder / "far.pt");
    test::ZipWriter zip(file);
    zip.begin("far/data/0", 4 * Far::count);
    const uint64_t begin = file.size();
    file.append_hole(4 * Far::count);
    Far::fill(file, begin);
    zip.add("far/data/1", Far::after());  // this and all that follows lie beyond what 32 bits can say
    zip.add("far/data.pkl", Far::pickle());
    zip.finish();
  }
  Far::expect_read(folder / "far.pt");
}

TEST(TorchFile, BeyondFourGigabytesIsReadFromTheOlderFormat) {
  const TemporaryFolder folder;
  {
    using namespace test::pickled;
    test::SparseFile file(folder / "far.pt");
    file.append(std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", 15));
    file.append(whole("M\xe9\x03") + whole("}") + Far::pickle() + whole("](" + text("0") + text("1") + "e"));
    file.append(test::little_endian(Far::count));
    const uint64_t begin = file.size();
    file.append_hole(4 * Far::count);
    Far::fill(file, begin);
    file.append(test::little_endian(int64_t{3}) + Far::after());
  }
  Far::expect_read(folder / "far.pt");
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

// Of a pickle alone, and of a file around it whose pickle refers to no storage but "0", of one float.
std::string refusal_of_pickle(const std::string& opcodes) {
  const std::string text = test::pickled::whole(opcodes);
  ByteReader reader(std::as_bytes(std::span(text)), "p");
  try {
    Pickle::read(reader, "p");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string refusal_of_file(const std::string& opcodes) {
  const TemporaryFolder folder;
  {
    test::SparseFile file(folder / "f.pt");
    test::ZipWriter zip(file);
    zip.add("f/data.pkl", test::pickled::whole(opcodes));
    zip.add("f/data/0", test::little_endian(1.0f));
    zip.finish();
  }
  try {
    TorchFile::open(folder / "f.pt");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string repeated(const std::string& text, size_t times) {
  std::string result;
  result.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) result += text;
  return result;
}

// A small file must not fill the memory or take for ever: values take a hundred times the bytes that make them,
// ...
TEST(PickleBomb, OfTooManyValuesIsRefused) {
  EXPECT_NE(refusal_of_pickle(std::string(4'000'001, 'N')).find("too many values"), std::string::npos);
}

TEST(Pickle, WhatIsNoWeightIsLeftOut) {
  using namespace test::pickled;
  const std::string weight = text("w") + tensor("0", 1, 0, {1}, {1});
  EXPECT_EQ(refusal_of_file("}(" + weight + text("wide") + tensor("0", 1, 0, {1000}, {0}) + "u"), "accepted");
  EXPECT_EQ(refusal_of_file("}(" + weight + text("odd") + "ctorch._utils\n_rebuild_tensor_v3\n(tRu"),
            "accepted");
  EXPECT_NE(refusal_of_file("}(" + weight + text("wide") + tensor("0", 1, 0, {1000}, {1}) + "u"), "accepted");
}

TEST(Pickle, HoldsPlainDataOfTrainings) {
  using namespace test::pickled;
  const std::string weight = text("w") + tensor("0", 1, 0, {1}, {1});
  for (const char* name : {"__builtin__\nset", "collections\nCounter", "collections\ndefaultdict",
                           "pathlib\nPosixPath", "pathlib._local\nPosixPath", "pathlib\nPureWindowsPath"})
    EXPECT_EQ(refusal_of_file(fmt::format("}}({}{}c{}\n(tRu", weight, text("data"), name)), "accepted") << name;
}

// As Python writes it: made of what it gives for a missing key, and then filled.
TEST(Pickle, ADefaultDictionaryHoldsItems) {
  using namespace test::pickled;
  const std::string weight = text("w") + tensor("0", 1, 0, {1}, {1});
  EXPECT_EQ(refusal_of_file("ccollections\ndefaultdict\n(c__builtin__\nlist\ntR(" + weight + "u"), "accepted");
  EXPECT_NE(refusal_of_file("ccollections\ndefaultdict\n(c__builtin__\nlist\n)RtR(" + weight + "u")
                .find("it wants to call __builtin__.list"),
            std::string::npos);
}

TEST(Pickle, HoldsNumbersOfEitherNumPy) {
  for (const char* module : {"numpy.core", "numpy._core"}) {
    const std::string dtype = "cnumpy\ndtype\n(" + test::pickled::text("f8") + "\x89\x88tR";
    EXPECT_EQ(refusal_of_pickle(fmt::format("c{}.multiarray\nscalar\n({}", module, dtype) +
                                test::pickled::text("12345678") + "tR"),
              "accepted");
  }
}

// ... and places to keep one value in eight times and more, ...
TEST(PickleBomb, OfOneValueInTooManyPlacesIsRefused) {
  for (const char opcode : {'2', '(', '\x94'})  // on the stack, under marks, and remembered
    EXPECT_NE(refusal_of_pickle("N" + std::string(4'000'001, opcode)).find("too many values"),
              std::string::npos)
        << opcode;
}

// ... an object's name is copied wherever it is named, ...
TEST(PickleBomb, OfLongNamesOfObjectsIsRefused) {
  using test::pickled::text;
  const auto object = [](size_t length) { return text("torch") + text(std::string(length, 'x')) + "\x93"; };
  EXPECT_EQ(refusal_of_pickle(object(1000)), "accepted");
  EXPECT_NE(refusal_of_pickle(object(1024)).find("too long a name"), std::string::npos);
  EXPECT_NE(refusal_of_pickle("ctorch\n" + std::string(1024, 'x') + "\n").find("too long a name"),
            std::string::npos);
}

// ... a list that is given to OrderedDict again and again is copied each time, ...
TEST(PickleBomb, OfCopiesOfOneListIsRefused) {
  const std::string list = "](" + repeated("NN\x86q\x01", 1) + repeated("h\x01", 100'000) + "eq\x02";
  EXPECT_NE(
      refusal_of_pickle(list + repeated("ccollections\nOrderedDict\nh\x02\x85R", 200)).find("too many items"),
      std::string::npos);
}

// ... one dictionary may stand in many others, ...
TEST(PickleBomb, OfOneDictionaryInManyIsRefused) {
  std::string inner = "}(", outer = "}(" + test::pickled::text("d");
  for (int i = 0; i < 2000; ++i) inner += test::pickled::number(i) + "N";
  outer += inner + "uq\x01";
  for (int i = 0; i < 2000; ++i) outer += test::pickled::text(std::to_string(i)) + "h\x01";
  EXPECT_NE(refusal_of_file(outer + "u").find("too many entries"), std::string::npos);
}

// ... and a long key is part of every name below it.
TEST(PickleBomb, OfLongNamesIsRefused) {
  const std::string tensor = test::pickled::tensor("0", 1, 0, {1}, {1});
  EXPECT_EQ(refusal_of_file("}(" + test::pickled::text("w") + tensor + "u"), "accepted");
  EXPECT_NE(
      refusal_of_file("}(" + test::pickled::text(std::string(5000, 'w')) + tensor + "u").find("is too long"),
      std::string::npos);
}

// So is each of many that are short enough.
TEST(PickleBomb, OfTooManyLongNamesIsRefused) {
  using namespace test::pickled;
  const std::string inner = "}(" + text(std::string(4000, 'w')) + tensor("0", 1, 0, {1}, {1}) + "uq\x01";
  std::string outer = "}(" + text("d") + inner;
  for (int i = 0; i < 20'000; ++i) outer += text(std::to_string(i)) + "h\x01";
  EXPECT_NE(refusal_of_file(outer + "u").find("names in it are too long"), std::string::npos);
}

TEST(Pickle, NestedAMillionDeepIsReadAndLetGoWithoutRecursion) {
  EXPECT_EQ(refusal_of_pickle(std::string(1'000'000, ')') + repeated("\x85", 1'000'000)), "accepted");
  EXPECT_NE(refusal_of_file(repeated("}" + test::pickled::text("a"), 100'000) + "}" + repeated("s", 100'000))
                .find("there are no tensors"),
            std::string::npos);
}

TEST(TorchFile, SaysWhatAFileWantedToCall) {
  EXPECT_NE(refusal("system_call.pt").find("it wants to call posix.system"), std::string::npos)
      << refusal("system_call.pt");
  EXPECT_NE(refusal("eval_call.pt").find("it wants to call builtins.eval"), std::string::npos)
      << refusal("eval_call.pt");
  EXPECT_NE(refusal("new_object.pt").find("it wants to call subprocess.Popen"), std::string::npos)
      << refusal("new_object.pt");
}

// Wherever in a file a call stands, also where no tensor is: it would have been made by Python's reader.
TEST(TorchFile, SaysSoOfCallsThatAreOutOfTheWay) {
  for (const char* name : {"call_in_optimizer.pt", "call_in_metadata.pt", "call_in_namespace.pt",
                           "call_thrown_away.pt", "call_in_a_shape.pt"})
    EXPECT_NE(refusal(name).find("it wants to call posix.system"), std::string::npos) << refusal(name);
}

TEST(TorchFile, SaysWhatIsWrongWithAZipArchive) {
  const std::pair<const char*, const char*> cases[] = {
      {"compressed.pt", "is compressed"},
      {"compressed_bomb.pt", "is compressed"},
      {"zip_encrypted.pt", "is encrypted"},
      {"zip_two_names.pt", "has another name before its contents"},
      {"zip_overlap.pt", "overlap"},
      {"zip_in_directory.pt", "overlap"},
      {"zip_count_enormous.pt", "zip archive"},
      {"twice_the_same_name.pt", "is in it twice"},
      {"zip_offset_wrong.pt", "is not where the directory says"}};
  for (const auto& [name, text] : cases)
    EXPECT_NE(refusal(name).find(text), std::string::npos) << refusal(name);
}

}  // namespace
}  // namespace linnet
