// linnet generate into a folder: gone on with, shared by processes, and as one file for ADM's evaluation.
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/npz.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class GenerateFolder : public testing::Test {
 protected:
  static Arguments arguments(const Arguments& more) {
    Arguments all = {"generate", "--model", "small.safetensors", "--steps", "3", "-n", "20", "--batch", "4"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Result generate(const Arguments& more, const std::function<void()>& in_child = {}) const {
    return run(arguments(more), {folder_.path(), in_child});
  }
  void expect_same(const std::string& one, const std::string& other) const {
    const auto names = listing(folder_ / one);
    EXPECT_EQ(names, listing(folder_ / other));
    EXPECT_EQ(names.size(), 20u);
    for (const std::string& name : names)
      EXPECT_EQ(contents(folder_ / one / name), contents(folder_ / other / name)) << name;
  }

  TemporaryFolder folder_;
  const std::string model_ = write_small_model(folder_ / "small.safetensors");
};

TEST_F(GenerateFolder, WhatIsThereIsNotPaintedAgain) {
  ASSERT_TRUE(succeeded(generate({"-o", "whole/"})));
  EXPECT_EQ(listing(folder_ / "whole").front(), "000000.png");
  EXPECT_EQ(read_image_notes(folder_ / "whole/000019.png").text.at("seed"), "19");
  fs::create_directories(folder_ / "parts");
  for (const char* name : {"000000.png", "000001.png", "000002.png", "000003.png", "000009.png"})
    fs::copy_file(folder_ / "whole" / name, folder_ / "parts" / name);
  const Result result = generate({"-o", "parts", "--classes", "balanced"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("16 pictures in"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("4 were there"), std::string::npos) << result.out;
  expect_same("whole", "parts");
}

TEST_F(GenerateFolder, APictureThatAPowerFailureLeftEmptyIsPaintedAgain) {
  ASSERT_TRUE(succeeded(generate({"-o", "whole/"})));
  fs::copy(folder_ / "whole", folder_ / "parts");
  fs::resize_file(folder_ / "parts/000009.png", 0);
  const Result result = generate({"-o", "parts/"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_NE(result.out.find("16 were there"), std::string::npos) << result.out;
  expect_same("whole", "parts");
}

// A file's middle or its end may be zeros, or missing, as its pages go to the disk one by one.
TEST_F(GenerateFolder, APictureThatAPowerFailureLeftDamagedIsPaintedAgain) {
  const auto damaged = [](std::string bytes, const std::string& how) {
    if (how == "begins with zeros") return bytes.replace(0, 100, 100, '\0');
    if (how == "has lost its end") return bytes.substr(0, bytes.size() - 300);
    return bytes.replace(bytes.size() - 300, 300, 300, '\0');
  };
  for (const std::string format : {"png", "jpg", "webp"}) {
    const std::string whole = format + "-whole", parts = format + "-parts";
    ASSERT_TRUE(succeeded(generate({"-o", whole + "/", "--format", format})));
    for (const std::string how : {"begins with zeros", "has lost its end", "ends with zeros"}) {
      fs::remove_all(folder_ / parts);
      fs::copy(folder_ / whole, folder_ / parts);
      const fs::path file = folder_ / parts / ("000009." + format);
      const std::string bytes = damaged(contents(file), how);
      fs::remove(file);
      std::ofstream(file, std::ios::binary) << bytes;
      const Result result = generate({"-o", parts + "/", "--format", format, "--npz", "p.npz"});
      ASSERT_TRUE(succeeded(result)) << format << " " << how;
      EXPECT_NE(result.out.find("16 were there"), std::string::npos) << format << " " << how << result.out;
      expect_same(whole, parts);
    }
  }
}

TEST_F(GenerateFolder, PicturesOfEveryFormatCanBeGoneOnWithAndAreWhatWasPainted) {
  ASSERT_TRUE(succeeded(generate({"-o", "png/"})));
  for (const std::string format : {"webp", "jpg"}) {
    ASSERT_TRUE(succeeded(generate({"-o", format + "/", "--format", format})));
    const Result again = generate({"-o", format + "/", "--format", format});
    EXPECT_NE(again.out.find("20 were there"), std::string::npos) << again.out;
    EXPECT_EQ(listing(folder_ / format).front(), "000000." + format);
  }
  EXPECT_EQ(read_image(folder_ / "webp/000007.webp"), read_image(folder_ / "png/000007.png"));
  const Result info = run({"info", "jpg/000007.jpg"}, {folder_.path()});
  EXPECT_EQ(info.out.substr(0, info.out.find('\n')), "JPEG, 16x16 pixels");
  EXPECT_NE(info.out.find("seed          7"), std::string::npos) << info.out;
}

TEST_F(GenerateFolder, KilledAtAnyMomentItEndsAsUndisturbed) {
  ASSERT_TRUE(succeeded(generate({"-o", "whole/"})));
  for (const char* picture : {"000002.png", "000009.png", "000018.png"}) {
    Process process(arguments({"-o", "parts/"}), {folder_.path()});
    process.wait_for(picture);
    process.send(SIGKILL);
    process.wait();
  }
  ASSERT_TRUE(succeeded(generate({"-o", "parts/"})));
  expect_same("whole", "parts");
}

// As mpirun starts them.
std::function<void()> as_process(const char* index) {
  return [index] {
    ::setenv("OMPI_COMM_WORLD_SIZE", "3", 1);
    ::setenv("OMPI_COMM_WORLD_RANK", index, 1);
  };
}

TEST_F(GenerateFolder, ProcessesShareTheWorkAndMakeTheSameSet) {
  ASSERT_TRUE(succeeded(generate({"-o", "whole/", "--npz", "whole.npz"})));
  for (const char* index : {"2", "0", "1"}) {
    EXPECT_FALSE(fs::exists(folder_ / "shared.npz"));
    ASSERT_TRUE(succeeded(generate({"-o", "shared/", "--npz", "shared.npz"}, as_process(index))));
  }
  expect_same("whole", "shared");
  EXPECT_EQ(contents(folder_ / "whole.npz"), contents(folder_ / "shared.npz"));
}

TEST_F(GenerateFolder, ProcessesShareNothingButAFolder) {
  for (const Arguments& output :
       {Arguments{"-o", "p.png"}, Arguments{"-o", "p.png", "--grid"}, Arguments{"--latents-out", "l"}})
    EXPECT_TRUE(failed(generate(output, as_process("1")), 2, "share the pictures of a folder"));
  EXPECT_EQ(listing(folder_.path()), (std::vector<std::string>{"small.safetensors"}));
}

TEST_F(GenerateFolder, AnNpzHoldsThePictures) {
  ASSERT_TRUE(succeeded(generate({"-o", "p/", "--npz", "p.npz"})));
  const Image third = read_image(folder_ / "p/000002.png");
  int64_t arrays = 0;
  const auto any = [](std::string_view) { return true; };
  read_npz(folder_ / "p.npz", any, [&](const NpyArray& array, const ReadValues& read) {
    ++arrays;
    EXPECT_EQ(array.name, "arr_0");
    ASSERT_EQ(array.shape, (Shape{20, 16, 16, 3}));
    std::vector<uint8_t> pixels(static_cast<size_t>(array.shape.numel()));
    read(pixels.data(), pixels.size());
    EXPECT_EQ(std::vector<uint8_t>(pixels.begin() + 2 * 768, pixels.begin() + 3 * 768), third.rgb);
  });
  EXPECT_EQ(arrays, 1);
}

TEST_F(GenerateFolder, OtherPicturesByTheSameNamesAreRefused) {
  ASSERT_TRUE(succeeded(generate({"-o", "p/"})));
  const std::string before = contents(folder_ / "p/000000.png");
  EXPECT_TRUE(failed(generate({"-o", "p/", "--seed", "5"}), 1, "choose another folder"));
  EXPECT_TRUE(failed(generate({"-o", "p/", "--cfg", "2"}), 1, "p/000000.png"));
  EXPECT_EQ(contents(folder_ / "p/000000.png"), before);
}

TEST_F(GenerateFolder, NothingIsPaintedBesideOtherPictures) {
  ASSERT_TRUE(succeeded(generate({"-o", "p/"})));
  for (const char* first : {"p/000000.png", "p/000001.png", "p/000002.png", "p/000003.png"})
    fs::remove(folder_ / first);
  EXPECT_TRUE(failed(generate({"-o", "p/", "--cfg", "2"}), 1, "p/000004.png"));
  EXPECT_EQ(listing(folder_ / "p").size(), 16u);
}

TEST_F(GenerateFolder, WrongUsesAreRefused) {
  EXPECT_TRUE(failed(generate({"-o", "p/", "--grid"}), 2, "sheet"));
  EXPECT_TRUE(failed(generate({"-o", "p/", "--latents-out", "l"}), 2, "--latents-out"));
  EXPECT_TRUE(failed(generate({"-o", "p.png", "--npz", "p.npz"}), 2, "--npz"));
  EXPECT_TRUE(failed(generate({"-o", "p/", "--npz", "none/p.npz"}), 1, "none"));
  EXPECT_TRUE(failed(generate({"-o", "small.safetensors/"}), 1, "small.safetensors"));
  EXPECT_EQ(listing(folder_.path()), (std::vector<std::string>{"small.safetensors"}));
}

}  // namespace
}  // namespace linnet::test
