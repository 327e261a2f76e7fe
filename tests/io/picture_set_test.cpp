// Data sets as people keep them: class folders and tar files, whole and damaged.
#include "io/picture_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <thread>

#include "core/error.h"
#include "io/captions.h"
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

// As torchvision's ImageFolder has it.
TEST_F(PictureSetTest, FoldersWithinAClassBelongToIt) {
  write(folder_ / "a/train/deep/1.png", "x");
  write(folder_ / "a/2.png", "y");
  fs::create_directory_symlink("..", folder_ / "a/train/again");
  EXPECT_EQ(all_of(PictureSet::open(folder_.path(), 3), folder_.path()),
            (std::vector<std::string>{"a/2.png=y:0", "a/train/deep/1.png=x:0"}));
}

TEST_F(PictureSetTest, AClassWithoutPicturesIsRefused) {
  write(folder_ / "a/1.png", "x");
  write(folder_ / "b/2.bmp", "y");
  EXPECT_EQ(
      test::refusal([&] { PictureSet::open(folder_.path(), 3); }),
      (folder_ / "b").string() + ": there is no PNG, JPEG or WebP picture in this folder, which names a class");
}

// As a data set that git-annex or DVC has fetched in part has them.
TEST_F(PictureSetTest, LinksThatLeadNowhereAreBrokenPictures) {
  write(folder_ / "a/1.png", "x");
  fs::create_symlink("2.png", folder_ / "a/2.png");
  fs::create_symlink("none", folder_ / "a/3.png");
  fs::create_symlink("none", folder_ / "b");
  EXPECT_EQ(all_of(PictureSet::open(folder_.path(), 3), folder_.path()),
            (std::vector<std::string>{"a/1.png=x:0", "a/2.png!", "a/3.png!"}));
  write(folder_ / "texts/1.txt", "one");
  fs::create_symlink("none", folder_ / "texts/1.png");
  write(folder_ / "texts/2.png", "x");
  fs::create_symlink("none", folder_ / "texts/2.txt");
  EXPECT_EQ(all_of(PictureSet::open(folder_ / "texts", 3, PictureNotes::captions), folder_ / "texts"),
            (std::vector<std::string>{"1.png!", "2.png!"}));
}

TEST_F(PictureSetTest, ALinkThatLeadsNowhereIsABrokenTarFile) {
  fs::create_symlink("none", folder_ / "0.tar");
  const PictureSet set = PictureSet::open(folder_.path(), 3);
  const auto ignore = [](auto&&...) {};
  test::expect_refused("0.tar cannot be read as a tar file", [&] { set.read(0, ignore, ignore); });
}

TEST_F(PictureSetTest, WhatIsHiddenIsNeitherAClassNorAPicture) {
  for (const char* name : {"a/1.png", "a/._1.png", "a/.cache/2.png", ".ipynb_checkpoints/3.png", "a/1.txt",
                           "a/._1.txt", "._0.tar"})
    write(folder_ / name, "x");
  const PictureSet classes = PictureSet::open(folder_.path(), 3);
  EXPECT_EQ(classes.class_names(), (std::vector<std::string>{"a"}));
  EXPECT_EQ(all_of(classes, folder_.path()), (std::vector<std::string>{"a/1.png=x:0"}));
  EXPECT_EQ(PictureSet::open(folder_ / "a", 3, PictureNotes::captions).count(), 1);
}

TEST_F(PictureSetTest, TarFilesBesidePicturesAreRefused) {
  { test::TarWriter(folder_ / "old.tar").add("x.png", "D"); }
  write(folder_ / "logs/notes.txt", "no picture");
  EXPECT_EQ(PictureSet::open(folder_.path(), 3).parts(), 1);
  write(folder_ / "cat/1.png", "x");
  EXPECT_EQ(
      test::refusal([&] { PictureSet::open(folder_.path(), 3); }),
      folder_.path().string() +
          ": there are tar files here (old.tar) and folders of pictures (cat): only one of them can be the "
          "data set; move the other elsewhere");
  EXPECT_EQ(PictureSet::open(folder_.path(), 3, PictureNotes::captions).parts(), 1);
  write(folder_ / "1.png", "x");
  write(folder_ / "1.txt", "a cat");
  test::expect_refused("(old.tar) and pictures with texts",
                       [&] { PictureSet::open(folder_.path(), 3, PictureNotes::captions); });
}

TEST_F(PictureSetTest, ATextThatCannotBeReadLeavesOutItsPictureAlone) {
  for (const char* name : {"1.png", "2.png", "3.png", "1.txt"}) write(folder_ / name, "x");
  write(folder_ / "2.txt", std::string(1'000'001, 'x'));
  fs::create_directory(folder_ / "3.txt");
  EXPECT_EQ(all_of(PictureSet::open(folder_.path(), 3, PictureNotes::captions), folder_.path()),
            (std::vector<std::string>{"1.png=x:0", "2.png!", "3.png!"}));
}

TEST_F(PictureSetTest, LinksToPicturesAndToClassesAreFollowed) {
  write(folder_ / "elsewhere/1.png", "x");
  write(folder_ / "set/a/2.png", "y");
  fs::create_symlink("../../elsewhere/1.png", folder_ / "set/a/1.png");
  fs::create_directory_symlink("../elsewhere", folder_ / "set/b");
  EXPECT_EQ(all_of(PictureSet::open(folder_ / "set", 3), folder_ / "set"),
            (std::vector<std::string>{"a/1.png=x:0", "a/2.png=y:0", "b/1.png=x:1"}));
}

TEST_F(PictureSetTest, TarFilesPairPicturesWithClasses) {
  {
    test::TarWriter tar(folder_ / "0.tar");
    tar.add("./d/one.jpg", "A");
    tar.add("./d/one.cls", "7\n");
    tar.add("two.cls", "3");
    tar.add("two.json", "{}");
    tar.add("two.seg.png", "the mask belongs to two, too, and comes first, but is not the picture");
    tar.add("two.png", "E");
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
            (std::vector<std::string>{"0.tar: ./d/one.jpg=A:7", "0.tar: two.png=E:3", "0.tar: bad.png!",
                                      "0.tar: lonely.png!", "1.tar: x.png!"}));
}

TEST_F(PictureSetTest, ASecondPictureOfAKeyIsLeftOut) {
  {
    test::TarWriter tar(folder_ / "0.tar");
    tar.add("a.jpg", "A");
    tar.add("a.png", "B");
    tar.add("a.cls", "1");
  }
  EXPECT_EQ(all_of(PictureSet::open(folder_.path(), 1000), folder_.path()),
            (std::vector<std::string>{"0.tar: a.png!", "0.tar: a.jpg=A:1"}));
}

TEST_F(PictureSetTest, APictureThatWaitsTooLongForItsClassIsLeftOut) {
  const auto name = [](int i, const char* extension) { return fmt::format("{:05}.{}", i, extension); };
  {
    test::TarWriter tar(folder_ / "0.tar");
    for (int i = 0; i <= 4096; ++i) tar.add(name(i, "png"), "A");
    tar.add(name(4096, "cls"), "7");
  }
  const auto all = all_of(PictureSet::open(folder_.path(), 1000), folder_.path());
  ASSERT_EQ(all.size(), 4097u);
  EXPECT_EQ(all[0], "0.tar: 00000.png!");
  EXPECT_EQ(all[1], "0.tar: 04096.png=A:7");
  EXPECT_EQ(all[2], "0.tar: 00001.png!") << "those that still wait at the end";
}

TEST_F(PictureSetTest, APictureThatIsTooLargeIsLeftOut) {
  write(folder_ / "a/1.png", "x");
  fs::resize_file(folder_ / "a/1.png", (size_t{1} << 30) + 1);  // a hole
  EXPECT_EQ(all_of(PictureSet::open(folder_.path(), 3), folder_.path()),
            (std::vector<std::string>{"a/1.png!"}));
}

TEST_F(PictureSetTest, APictureWhoseTextIsTooLongIsLeftOut) {
  const std::string longest(65536, 'a');
  fs::create_directory(folder_ / "tar");
  {
    test::TarWriter tar(folder_ / "tar/0.tar");
    for (const auto& [key, text] : {std::pair{"a", longest}, {"b", longest + "a"}}) {
      tar.add(fmt::format("{}.txt", key), text);
      tar.add(fmt::format("{}.png", key), "x");
      write(folder_ / fmt::format("folder/{}.txt", key), text);
      write(folder_ / fmt::format("folder/{}.png", key), "x");
    }
  }
  for (const auto& [place, kept, left_out] :
       {std::tuple{"tar", "0.tar: a.png=x:0", "0.tar: b.png!"}, {"folder", "a.png=x:0", "b.png!"}})
    EXPECT_EQ(all_of(PictureSet::open(folder_ / place, 10, PictureNotes::captions), folder_ / place),
              (std::vector<std::string>{kept, left_out}));
}

TEST_F(PictureSetTest, AClassWhoseNameIsNotUtf8IsRefused) {
  write(folder_ / "a/\xff.png", "x");
  EXPECT_EQ(PictureSet::open(folder_.path(), 3).count(), 1) << "names of pictures are not kept";
  write(folder_ / "b\xff/1.png", "x");
  const std::string sentence = test::refusal([&] { PictureSet::open(folder_.path(), 3); });
  EXPECT_NE(sentence.find("/b\\xff: this folder's name, which names a class, is not UTF-8"), std::string::npos)
      << sentence;
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
  const std::string before = PictureSet::open(folder_.path(), 3).fingerprints().files;
  EXPECT_EQ(before, PictureSet::open(folder_.path(), 3).fingerprints().files);
  EXPECT_NE(before, PictureSet::open(folder_.path(), 4).fingerprints().files);
  write(folder_ / "a/1.png", "xy");
  const std::string longer = PictureSet::open(folder_.path(), 3).fingerprints().files;
  EXPECT_NE(before, longer);
  write(folder_ / "a/2.png", "x");
  EXPECT_NE(longer, PictureSet::open(folder_.path(), 3).fingerprints().files);
}

TEST_F(PictureSetTest, TheFingerprintOfContentsSeesThemAndNothingElse) {
  const auto print = [&] { return PictureSet::open(folder_ / "set", 3).fingerprints().contents; };
  write(folder_ / "set/a/1.png", std::string(100'000, 'x'));
  write(folder_ / "set/a/2.png", "");
  const std::string before = print();
  fs::rename(folder_ / "set/a/1.png", folder_ / "set/a/0.png");  // names are in the other fingerprint
  fs::last_write_time(folder_ / "set/a/0.png", fs::file_time_type());
  EXPECT_EQ(print(), before);
  for (const size_t place : {0, 5, 99'999}) {
    std::string other(100'000, 'x');
    other[place] = 'y';
    write(folder_ / "set/a/0.png", other);
    EXPECT_NE(print(), before) << place;
  }
}

TEST_F(PictureSetTest, TheFingerprintOfContentsSeesWithinTarFiles) {
  const auto print = [&](char inside) {
    test::TarWriter(folder_ / "0.tar").add("a.png", std::string(2'000'000, inside));
    return PictureSet::open(folder_.path(), 3).fingerprints().contents;
  };
  EXPECT_EQ(print('x'), print('x'));
  EXPECT_NE(print('x'), print('y'));
}

// Or latents that were made before could not be gone on with.
TEST_F(PictureSetTest, FingerprintsAreThoseOfEarlierVersions) {
  write(folder_ / "a/1.png", "x");
  write(folder_ / "a/2.jpg", std::string(10'000, 'y'));
  write(folder_ / "b/1.png", std::string(2'000'000, 'z'));
  write(folder_ / "b/3.webp", "");
  const auto prints = PictureSet::open(folder_.path(), 3).fingerprints();
  EXPECT_EQ(prints.files, "47b639f9cc2e5df0");
  EXPECT_EQ(prints.contents, "cd5bc32650c7c734");
}

TEST_F(PictureSetTest, WhoTakesFingerprintsHearsHowFarItIsAndMayStopIt) {
  constexpr int files = 600;
  for (int i = 0; i < files; ++i) write(folder_ / fmt::format("a/{}.png", i), "x");
  const PictureSet set = PictureSet::open(folder_.path(), 3);
  std::vector<int64_t> heard;
  const auto here = std::this_thread::get_id();
  set.fingerprints([&](int64_t done, int64_t count) {
    EXPECT_EQ(count, files);
    EXPECT_EQ(std::this_thread::get_id(), here);
    heard.push_back(done);
  });
  EXPECT_GT(heard.size(), 1u);
  EXPECT_TRUE(std::ranges::is_sorted(heard));
  EXPECT_EQ(heard.back(), files);
  struct Stop {};
  const auto stop = [&](int64_t done, int64_t) {
    EXPECT_LT(done, files);
    throw Stop();
  };
  EXPECT_THROW(set.fingerprints(stop), Stop);
}

TEST_F(PictureSetTest, TheFingerprintSeesClassesButNotWhereLinksLead) {
  const fs::path set = folder_ / "set";
  const auto print = [&] { return PictureSet::open(set, 3).fingerprints().files; };
  write(set / "cat/1.png", "x");
  const std::string cats = print();
  fs::rename(set / "cat", folder_ / "elsewhere");
  fs::create_directory_symlink("../elsewhere", set / "cat");
  EXPECT_EQ(print(), cats);
  fs::copy(set / "cat", set / "bird");  // now cats are the second class
  const std::string second = print();
  EXPECT_NE(second, cats);
  fs::rename(set / "bird", set / "dog");
  EXPECT_NE(print(), second);
}

TEST_F(PictureSetTest, AFolderOfWhichTheSystemDoesNotTellIsNotCalledMissing) {
  fs::create_symlink("loop", folder_ / "loop");
  for (const auto& open : {std::function([&] { PictureSet::open(folder_ / "loop", 3); }),
                           {[&] { pictures_by_class(folder_ / "loop"); }},
                           {[&] { read_captions(folder_ / "loop"); }}})
    EXPECT_NE(test::refusal(open).find("loop: Too many levels of symbolic links"), std::string::npos);
}

TEST_F(PictureSetTest, AFolderWithoutPicturesIsRefused) {
  EXPECT_THROW(PictureSet::open(folder_ / "none", 3), Error);
  write(folder_ / "1.png", "in no class");
  EXPECT_NE(test::refusal([&] { PictureSet::open(folder_.path(), 3); }).find("class sub-folders"),
            std::string::npos);
}

}  // namespace
}  // namespace linnet
