// NumPy's .npz files, as NumPy wrote them (tests/reference/make_inception_dumps.py), and as Linnet does.
#include "io/npz.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>

#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;
using test::refusal;

const fs::path files = LINNET_TEST_DATA "/npz";

struct Read {
  NpyArray array;
  std::vector<std::byte> bytes;
};
bool any(std::string_view) { return true; }
std::map<std::string, Read> all_of(const fs::path& path,
                                   const std::function<bool(std::string_view)>& wants = any) {
  std::map<std::string, Read> result;
  read_npz(path, wants, [&](const NpyArray& array, const ReadValues& read) {
    Read& entry = result[array.name] = {array, {}};
    if (!array.dtype) return;
    entry.bytes.resize(static_cast<size_t>(array.shape.numel()) * size_of(*array.dtype));
    read(entry.bytes.data(), entry.bytes.size());
  });
  return result;
}

template <class Number>
Number number_at(const std::vector<std::byte>& bytes, size_t index) {
  Number number;
  std::memcpy(&number, bytes.data() + index * sizeof number, sizeof number);
  return number;
}

TEST(Npz, ReadsWhatNumPyWrote) {
  const auto numbers = all_of(files / "numbers.npz"), compressed = all_of(files / "compressed.npz");
  EXPECT_EQ(numbers.at("pairs").array.shape, (Shape{2, 3}));
  EXPECT_EQ(numbers.at("pairs").array.dtype, DType::f32);
  EXPECT_EQ(number_at<float>(numbers.at("pairs").bytes, 4), 4.0f);
  EXPECT_EQ(numbers.at("bytes").array.shape, (Shape{1, 2, 4, 3}));
  EXPECT_EQ(numbers.at("bytes").bytes[23], std::byte{23});
  EXPECT_EQ(compressed.at("mu").array.shape, (Shape{3}));
  EXPECT_EQ(number_at<double>(compressed.at("mu").bytes, 2), 2.0);
  EXPECT_EQ(compressed.at("pairs").bytes, numbers.at("pairs").bytes);
}

TEST(Npz, SaysThatAnArrayIsInFortransOrder) {
  const Read columns = all_of(files / "fortran.npz").begin()->second;
  EXPECT_TRUE(columns.array.fortran_order);
  EXPECT_FALSE(all_of(files / "numbers.npz").at("pairs").array.fortran_order);
}

TEST(Npz, WhatIsNotWantedMayBeAnything) {
  for (const char* name : {"five_dimensions.npz", "no_array.npz"}) {
    EXPECT_NE(refusal([&] { (void)all_of(files / name); }), "accepted") << name;
    const auto wanted = all_of(files / name, [](std::string_view array) { return array == "mu"; });
    ASSERT_EQ(wanted.size(), 1u) << name;
    EXPECT_EQ(number_at<double>(wanted.at("mu").bytes, 1), 1.0) << name;
  }
}

TEST(Npz, PicturesComeBack) {
  const TemporaryFolder folder;
  write_npz_pictures(folder / "a.npz", 3, 5, 7, [](int64_t i, uint8_t* into) {
    std::fill_n(into, 5 * 7 * 3, static_cast<uint8_t>(i + 1));
  });
  const auto arrays = all_of(folder / "a.npz");
  ASSERT_EQ(arrays.size(), 1u);
  const Read& pictures = arrays.at("arr_0");
  EXPECT_EQ(pictures.array.shape, (Shape{3, 5, 7, 3}));
  EXPECT_EQ(pictures.array.dtype, DType::u8);
  EXPECT_EQ(pictures.bytes.front(), std::byte{1});
  EXPECT_EQ(pictures.bytes.back(), std::byte{3});
}

TEST(Npz, WhatFailsLeavesNoFile) {
  const TemporaryFolder folder;
  EXPECT_NE(refusal([&] {
              write_npz_pictures(folder / "a.npz", 2, 4, 4,
                                 [](int64_t i, uint8_t*) { check(i == 0, "no second picture"); });
            }),
            "accepted");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Npz, RefusesWhatItCannotRead) {
  const TemporaryFolder folder;
  const auto read = [](const fs::path& path) { return refusal([&] { (void)all_of(path); }); };
  EXPECT_NE(read(files / "five_dimensions.npz").find("array more: its shape"), std::string::npos);
  EXPECT_NE(read(files / "no_array.npz").find("array notes.txt is no NumPy array"), std::string::npos);
  EXPECT_NE(read(folder / "none.npz").find("none.npz"), std::string::npos);
  std::ofstream(folder / "text.npz") << "no archive, but long enough to be looked at as one";
  EXPECT_NE(read(folder / "text.npz").find("text.npz"), std::string::npos);
  fs::copy_file(files / "numbers.npz", folder / "cut.npz");
  for (uintmax_t size = fs::file_size(folder / "cut.npz") - 1; size > 200; size -= 37) {
    fs::resize_file(folder / "cut.npz", size);
    (void)read(folder / "cut.npz");  // an Error or what is whole, never a crash
  }
}

}  // namespace
}  // namespace linnet
