// Data sets as people keep them: class folders and tar files, whole and damaged.
#include "io/picture_set.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "support/refusal.h"
#include "support/tar_writer.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// "name=contents:label" of all pictures, and "name!" of all that are broken, without the folder.
std::vector<std::string> all_of(const PictureSet& set, const fs::path& root) {
  std::vector<std::string> result;
  const auto short_name = [&](const std::string& name) { return name.substr(root.string().size() + 1); };
  for (int64_t part = 0; part < set.parts(); ++part)
    set.read(
        part,
        [&](const StoredPicture& picture) {
          const std::string text(reinterpret_cast<const char*>(picture.bytes.data()), picture.bytes.size());
          result.push_back(fmt::format("{}={}:{}", short_name(picture.name), text, picture.label));
        },
        [&](const std::string& name, const std::string&) { result.push_back(short_name(name) + "!"); });
  return result;
}

class PictureSetTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(PictureSetTest, ClassFoldersAreReadInOrder) {
  write(folder_ / "b/2.png", "x");
  write(folder_ / "b/1.JPEG", "y");
  write(folder_ / "a/3.jpg", "z");
  write(folder_ / "a/notes.txt", "not a picture");
  write(folder_ / "a/empty.png", "");
  const PictureSet set = PictureSet::open(folder_.path(), 3);
  EXPECT_EQ(set.class_names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(set.count(), 4);
  EXPECT_EQ(set.parts(), 2);
  EXPECT_EQ(all_of(set, folder_.path()),
            (std::vector<std::string>{"a/3.jpg=z:0", "a/empty.png!", "b/1.JPEG=y:1", "b/2.png=x:1"}));
}

TEST_F(PictureSetTest, TarFilesPairPicturesWithClasses) {
  {
    test::TarWriter tar(folder_ / "0.tar");
    tar.add("./d/one.jpg", "A");
    tar.add("./d/one.cls", "7\n");
    tar.add("two.cls", "3");
    tar.add("two.json", "{}");
    tar.add("two.seg.png", "the mask belongs to two, too, and comes first");
    tar.add("lonely.png", "B");
    tar.add("bad.cls", "seven");
    tar.add("bad.png", "C");
  }
  { test::TarWriter(folder_ / "1.tar").add("x.png", "D"); }
  const PictureSet set = PictureSet::open(folder_.path(), 1000);
  EXPECT_EQ(set.parts(), 2);
  EXPECT_EQ(set.count(), 0);
  EXPECT_TRUE(set.class_names().empty());
  EXPECT_EQ(all_of(set, folder_.path()),
            (std::vector<std::string>{"0.tar: ./d/one.jpg=A:7",
                                      "0.tar: two.seg.png=the mask belongs to two, too, and "
                                      "comes first:3",
                                      "0.tar: bad.png!", "0.tar: lonely.png!", "1.tar: x.png!"}));
}

TEST_F(PictureSetTest, DamagedTarFilesAreRefusedByName) {
  { test::TarWriter(folder_ / "whole.tar").add("a.png", std::string(5000, 'x')); }
  fs::resize_file(folder_ / "whole.tar", 2000);
  write(folder_ / "noise.tar", std::string(3000, 'z'));
  const PictureSet set = PictureSet::open(folder_.path(), 1000);
  const auto ignore = [](auto&&...) {};
  EXPECT_NE(test::refusal([&] { set.read(0, ignore, ignore); }).find("noise.tar"), std::string::npos);
  EXPECT_NE(test::refusal([&] { set.read(1, ignore, ignore); }).find("whole.tar"), std::string::npos);
}

TEST_F(PictureSetTest, TheFingerprintSeesNamesAndSizes) {
  write(folder_ / "a/1.png", "x");
  const std::string before = PictureSet::open(folder_.path(), 3).fingerprint();
  EXPECT_EQ(before, PictureSet::open(folder_.path(), 3).fingerprint());
  EXPECT_NE(before, PictureSet::open(folder_.path(), 4).fingerprint());
  write(folder_ / "a/1.png", "xy");
  const std::string longer = PictureSet::open(folder_.path(), 3).fingerprint();
  EXPECT_NE(before, longer);
  write(folder_ / "a/2.png", "x");
  EXPECT_NE(longer, PictureSet::open(folder_.path(), 3).fingerprint());
}

TEST_F(PictureSetTest, AFolderWithoutPicturesIsRefused) {
  EXPECT_THROW(PictureSet::open(folder_ / "none", 3), Error);
  write(folder_ / "1.png", "in no class");
  EXPECT_NE(test::refusal([&] { PictureSet::open(folder_.path(), 3); }).find("class sub-folders"),
            std::string::npos);
}

}  // namespace
}  // namespace linnet
