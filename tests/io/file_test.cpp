// Files written whole or not at all: whatever stops the writer, the old file stays. And mapping, and limits.
#include "io/file.h"

#include <gtest/gtest.h>

#include <csignal>
#include <system_error>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

void write_text(const fs::path& path, const std::string& text) {
  write_file_atomically(path, [&](std::FILE* file) { write_bytes(file, text.data(), text.size()); });
}

std::string text_of(const fs::path& path) { return read_text_file(path, 1 << 20); }

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

size_t files_in(const TemporaryFolder& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()));
}

// Runs f in a child process and returns what waitpid says of it; f's result is the exit code.
template <class F>
int in_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 99;
    try {
      code = f();
    } catch (...) {
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(WriteFileAtomically, WritesAndReplaces) {
  const TemporaryFolder folder;
  write_text(folder / "x", "old");
  write_text(folder / "x", "new");
  EXPECT_EQ(text_of(folder / "x"), "new");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WriteFileAtomically, WhatIsReplaceableIsWrittenWholeToo) {
  const TemporaryFolder folder;
  write_text(folder / "x", "old");
  write_file_atomically(
      folder / "x",
      [&](std::FILE* file) {
        std::fputs("new", file);
        std::fflush(file);
        EXPECT_EQ(text_of(folder / "x"), "old");
      },
      Durability::replaceable);
  EXPECT_EQ(text_of(folder / "x"), "new");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WriteFileAtomically, ReplacesAPartialFileLeftBehind) {
  const TemporaryFolder folder;
  write_text(folder / "x.partial", "a longer text that a killed program left");
  write_text(folder / "x", "new");
  EXPECT_EQ(text_of(folder / "x"), "new");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WriteFileAtomically, WritesInTheCurrentFolder) {
  const TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_text("x", "here");
  fs::current_path(before);
  EXPECT_EQ(text_of(folder / "x"), "here");
}

TEST(WriteFileAtomically, FollowsASymbolicLink) {
  const TemporaryFolder folder;
  write_text(folder / "real", "old");
  fs::create_symlink("real", folder / "link");
  write_text(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(text_of(folder / "real"), "new");
}

TEST(WriteFileAtomically, FollowsALinkToWhatIsNotThereYet) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "sub");
  fs::create_symlink("sub/second", folder / "first");
  fs::create_symlink("real", folder / "sub/second");
  check_writable(folder / "first");
  write_text(folder / "first", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "first"));
  EXPECT_TRUE(fs::is_symlink(folder / "sub/second"));
  EXPECT_EQ(text_of(folder / "sub/real"), "new");
}

TEST(WriteFileAtomically, RefusesALinkThatLeadsToItself) {
  const TemporaryFolder folder;
  fs::create_symlink("x", folder / "x");
  EXPECT_EQ(error_of([&] { write_text(folder / "x", "new"); }),
            "cannot write " + (folder / "x").string() + ": Too many levels of symbolic links");
  EXPECT_TRUE(fs::is_symlink(folder / "x"));
}

TEST(WriteFileAtomically, LetsTheCallbacksExceptionThroughAndKeepsTheOldFile) {
  const TemporaryFolder folder;
  write_text(folder / "x", "old");
  EXPECT_THROW(write_file_atomically(folder / "x",
                                     [](std::FILE* file) {
                                       std::fputs("half", file);
                                       throw std::invalid_argument("stop");
                                     }),
               std::invalid_argument);
  EXPECT_EQ(text_of(folder / "x"), "old");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WriteFileAtomically, NamesThePathAndTheReason) {
  const TemporaryFolder folder;
  const std::string path = (folder / "missing").string() + "/x";
  EXPECT_EQ(error_of([&] { write_text(path, "x"); }), "cannot write " + path + ": No such file or directory");
}

TEST(WriteFileAtomically, RefusesFoldersAndDevices) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of([&] { write_text(folder.path(), "x"); }).find("it is a folder"), std::string::npos);
  EXPECT_NE(error_of([&] { write_text(folder.path() / "", "x"); }).find("folder"), std::string::npos);
  EXPECT_EQ(error_of([] { write_text("/dev/null", "x"); }), "cannot write /dev/null: it is not a regular file");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

// Everything is permitted to the superuser, so the child stops being that.
TEST(WriteFileAtomically, SaysWhenItIsNotPermitted) {
  const TemporaryFolder folder;
  write_text(folder / "x", "old");
  fs::permissions(folder / "x", fs::perms::none);
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec);
  const int status = in_child([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 2;
    const bool write = error_of([&] { write_text(folder / "x", "x"); }).ends_with(": Permission denied");
    const bool map = error_of([&] { MappedFile::open(folder / "x"); }).ends_with(": Permission denied");
    const bool read = error_of([&] { read_text_file(folder / "x", 9); }).ends_with(": Permission denied");
    return write && map && read ? 0 : 1;
  });
  fs::permissions(folder.path(), fs::perms::owner_all);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A limit on the size of files stands for a full disk: both fail in the middle of a write.
class FullDisk : public testing::TestWithParam<size_t> {};

TEST_P(FullDisk, KeepsTheOldFileAndSaysWhy) {
  const TemporaryFolder folder;
  write_text(folder / "x", "old");
  const size_t wanted = GetParam();
  const int status = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    // Plain fputc, unchecked: what has not been noticed in the callback must be noticed after it.
    const auto write = [&](std::FILE* file) {
      for (size_t i = 0; i < wanted; ++i) std::fputc('x', file);
    };
    const std::string message = error_of([&] { write_file_atomically(folder / "x", write); });
    const std::string hasty =
        error_of([&] { write_file_atomically(folder / "x", write, Durability::replaceable); });
    const std::string checked = error_of([&] { write_text(folder / "x", std::string(wanted, 'x')); });
    const std::string expected = "cannot write " + (folder / "x").string() + ": File too large";
    return message == expected && hasty == expected && checked == expected ? 0 : 1;
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(text_of(folder / "x"), "old");
  EXPECT_EQ(files_in(folder), 1u);
}

// One byte too many (seen only when the buffer is flushed), some blocks, and a lot.
INSTANTIATE_TEST_SUITE_P(Sizes, FullDisk, testing::Values(4097, 20'000, 3'000'000));

TEST(WriteFileAtomically, SurvivesBeingKilledInTheMiddle) {
  const TemporaryFolder folder;
  write_text(folder / "x", "old");
  const int status = in_child([&] {
    write_file_atomically(folder / "x", [](std::FILE* file) {
      std::fputs("half", file);
      std::fflush(file);
      ::raise(SIGKILL);
    });
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(text_of(folder / "x"), "old");
  write_text(folder / "x", "new");
  EXPECT_EQ(text_of(folder / "x"), "new");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WriteFileAtomically, NeverShowsAReaderHalfAFile) {
  const TemporaryFolder folder;
  const std::string a(100'000, 'a'), b(100'000, 'b');
  write_text(folder / "x", a);
  const pid_t writer = ::fork();
  if (writer == 0) {
    for (int i = 0; i < 50; ++i) write_text(folder / "x", i % 2 ? a : b);
    ::_exit(0);
  }
  for (int status = 0; ::waitpid(writer, &status, WNOHANG) == 0;) {
    const std::string seen = text_of(folder / "x");
    ASSERT_TRUE(seen == a || seen == b);
  }
}

TEST(WriteFileAtomically, TwoProcessesTakeTurns) {
  const TemporaryFolder folder;
  const std::string a(300'000, 'a'), b(200'000, 'b');
  const auto write_often = [&](const std::string& text) {
    for (int i = 0; i < 50; ++i) write_text(folder / "x", text);
  };
  const pid_t other = ::fork();
  if (other == 0) {
    try {
      write_often(b);
    } catch (const Error&) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  write_often(a);
  int status = -1;
  ::waitpid(other, &status, 0);
  EXPECT_EQ(status, 0);
  const std::string left = text_of(folder / "x");
  EXPECT_TRUE(left == a || left == b);
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WriteFileAtomically, SaysWhenWhatItIsMadeOfIsGone) {
  const TemporaryFolder folder;
  write_text(folder / "source", std::string(1 << 16, 'x'));
  const auto source = MappedFile::open(folder / "source");
  fs::resize_file(folder / "source", 100);
  EXPECT_EQ(error_of([&] {
              write_file_atomically(
                  folder / "x", [&](std::FILE* file) { write_bytes(file, source->data(), source->size()); });
            }),
            "cannot write " + (folder / "x").string() +
                ": a file that it is made of was made shorter while it was read");
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(CheckWritable, ANameIsTooLongWhereItsPartialFileHasNoRoom) {
  const TemporaryFolder folder;
  const fs::path fits = folder / std::string(247, 'x'), too_long = folder / std::string(248, 'x');
  check_writable(fits);
  write_text(fits, "text");
  for (const auto& write :
       {std::function([&] { check_writable(too_long); }), {[&] { write_text(too_long, ""); }}})
    EXPECT_TRUE(error_of(write).ends_with(": File name too long"));
}

TEST(CheckWritable, AFolderThatTheSystemDoesNotTellOfIsNotCalledMissing) {
  const TemporaryFolder folder;
  fs::create_symlink("loop", folder / "loop");
  const auto refused = [&](const char* name) { return error_of([&] { check_writable(folder / name); }); };
  EXPECT_TRUE(refused("loop/x").ends_with("/loop/x: Too many levels of symbolic links")) << refused("loop/x");
  EXPECT_NE(refused("none/x").find("there is no folder"), std::string::npos);
}

TEST(CheckWritable, WhatIsInThePlaceOfThePartialFileIsNamed) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "a.partial");
  fs::create_symlink("elsewhere", folder / "b.partial");
  ASSERT_EQ(::mkfifo((folder / "c.partial").c_str(), 0600), 0);
  for (const char* name : {"a", "b", "c"})
    for (const auto& write :
         {std::function([&] { check_writable(folder / name); }), {[&] { write_text(folder / name, "text"); }}})
      EXPECT_EQ(error_of(write),
                fmt::format("cannot write {0}: it is written as {0}.partial first, which is no regular file",
                            (folder / name).string()));
  write_text(folder / "d.partial", "of one that was killed");
  check_writable(folder / "d");
}

TEST(CheckFolderWritable, SaysWhatIsInTheWay) {
  const TemporaryFolder folder;
  write_text(folder / "file", "text");
  fs::create_symlink("loop", folder / "loop");
  const auto refused = [&](const fs::path& path) { return error_of([&] { check_folder_writable(path); }); };
  for (const char* name : {"", "new", "new/", "new/newer"}) EXPECT_EQ(refused(folder / name), "(no error)");
  EXPECT_EQ(refused("new/newer"), "(no error)");
  const std::string cannot = "cannot make the folder ", root = folder.path().string();
  EXPECT_EQ(refused(""), cannot + "\"\": it has no name");
  EXPECT_EQ(refused(folder / "file"), cannot + root + "/file: it is not a folder");
  EXPECT_EQ(refused(folder / "file/new"), cannot + root + "/file/new: " + root + "/file is not a folder");
  EXPECT_EQ(refused(folder / "loop"), cannot + root + "/loop: Too many levels of symbolic links");
  EXPECT_EQ(error_of([&] { make_folder(folder / "file/new"); }), cannot + root + "/file/new: Not a directory");
  make_folder(folder / "new/newer/");
  EXPECT_TRUE(is_folder(folder / "new/newer"));
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_exec);
  const int status = in_child([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 2;
    return refused(folder / "other/new").ends_with("/other/new: Permission denied") ? 0 : 1;
  });
  fs::permissions(folder.path(), fs::perms::owner_all);
  EXPECT_EQ(status, 0);
}

TEST(CheckFolderWritable, ALinkToNothingIsSaidToBeOne) {
  const TemporaryFolder folder;
  fs::create_symlink("none", folder / "link");
  const std::string link = (folder / "link").string(),
                    leads = link + " is a link to none, where there is nothing";
  for (const char* end : {"", "/", "/new"})
    for (const auto& make :
         {std::function([&] { check_folder_writable(link + end); }), {[&] { make_folder(link + end); }}})
      EXPECT_EQ(error_of(make), fmt::format("cannot make the folder {}: {}", link + end, leads));
}

TEST(WhatIsThere, IsAskedWithoutThrowing) {
  const TemporaryFolder folder;
  write_text(folder / "x", "text");
  fs::create_symlink("loop", folder / "loop");
  fs::create_symlink("x", folder / "link");
  EXPECT_TRUE(is_folder(folder.path()));
  EXPECT_TRUE(is_file(folder / "link"));
  EXPECT_TRUE(is_there(folder / "x"));
  for (const fs::path& path : {fs::path(folder / "loop"), fs::path(folder / "none"),
                               fs::path(std::string(5000, 'x')), fs::path(folder / "x/below"), fs::path()}) {
    EXPECT_FALSE(is_folder(path));
    EXPECT_FALSE(is_file(path));
    EXPECT_FALSE(is_there(path));
  }
  EXPECT_EQ(entries_of(folder.path()).size(), 3u);
  for (const fs::directory_entry& entry : entries_of(folder.path())) {
    EXPECT_EQ(is_file(entry), is_file(entry.path())) << entry;
    EXPECT_FALSE(is_folder(entry)) << entry;
  }
  EXPECT_EQ(error_of([&] { entries_of(folder / "loop"); }),
            "cannot read " + (folder / "loop").string() + ": Too many levels of symbolic links");
}

TEST(WhatIsThere, IsMissingOnlyIfTheSystemSaysSo) {
  const TemporaryFolder folder;
  write_text(folder / "x", "text");
  fs::create_symlink("loop", folder / "loop");
  for (const char* name : {"x", "none", "none/x", "x/below", ""}) check_told(folder / name);
  EXPECT_EQ(error_of([&] { check_told(folder / "loop/x"); }),
            "cannot read " + (folder / "loop/x").string() + ": Too many levels of symbolic links");
  EXPECT_TRUE(error_of([] { check_told(std::string(300, 'x')); }).ends_with(": File name too long"));
}

// A set of pictures may have millions on a disk that answers in milliseconds.
TEST(WhatIsThere, IsTakenFromTheFolderThatWasRead) {
  const TemporaryFolder folder;
  write_text(folder / "x", "text");
  const fs::directory_entry file = entries_of(folder.path()).at(0);
  fs::remove(file);
  EXPECT_FALSE(is_file(file.path()));
  EXPECT_TRUE(is_file(file)) << "the disk was asked again";
  fs::create_directory(folder / "y");
  fs::create_directory_symlink("y", folder / "x");
  for (const fs::directory_entry& entry : entries_of(folder.path())) EXPECT_TRUE(is_folder(entry)) << entry;
}

TEST(CheckKeeps, RefusesToWriteOverWhatIsRead) {
  const TemporaryFolder folder;
  write_text(folder / "in", "text");
  fs::create_symlink("in", folder / "link");
  fs::create_symlink(".", folder / "here");
  for (const char* output : {"in", "./in", "link", "here/in", "here/link"})
    EXPECT_EQ(error_of([&] { check_keeps(folder / output, folder / "in"); }),
              fmt::format("cannot write {}: it is the file that is read; choose another name",
                          (folder / output).string()));
  EXPECT_EQ(error_of([&] { check_keeps(folder / "in", folder / "link"); }).find("cannot write"), 0u);
  check_keeps(folder / "out", folder / "in");
  write_text(folder / "out", "another file");
  check_keeps(folder / "out", folder / "in");
  check_keeps(folder / "out", folder / "none");
  check_keeps(folder / "none", folder / "none");
}

TEST(CheckKeeps, RefusesToBeginInAPartialFileThatIsRead) {
  const TemporaryFolder folder;
  write_text(folder / "x.partial", "text");
  fs::create_symlink("x", folder / "link");
  for (const char* output : {"x", "link"})
    for (const auto check : {&check_keeps, &check_keeps_until_done})
      EXPECT_NE(error_of([&] { check(folder / output, folder / "x.partial"); }).find("which is read"),
                std::string::npos);
  write_text(folder / "x", "text");
  check_keeps_until_done(folder / "x", folder / "x");
}

TEST(ReadTextFile, ReadsUpToTheLimitAndNoMore) {
  const TemporaryFolder folder;
  write_text(folder / "x", std::string(50'000, 'x'));
  EXPECT_EQ(read_text_file(folder / "x", 50'000).size(), 50'000u);
  EXPECT_NE(error_of([&] { read_text_file(folder / "x", 49'999); }).find("larger than the 49999 bytes"),
            std::string::npos);
}

TEST(ReadTextFile, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  ::mkfifo((folder / "pipe").c_str(), 0600);
  EXPECT_NE(error_of([&] { read_text_file(folder / "pipe", 10); }).find("not a regular file"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_text_file(folder / "none", 10); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { read_text_file(folder.path(), 10); }).find("not a regular file"), std::string::npos);
}

TEST(MappedFile, GivesTheBytes) {
  const TemporaryFolder folder;
  write_text(folder / "x", "hello");
  const auto file = MappedFile::open(folder / "x");
  ASSERT_EQ(file->size(), 5u);
  EXPECT_EQ(file->data()[4], std::byte{'o'});
}

TEST(MappedFile, StaysWhenTheFileIsDeleted) {
  const TemporaryFolder folder;
  write_text(folder / "x", "hello");
  const auto file = MappedFile::open(folder / "x");
  fs::remove(folder / "x");
  EXPECT_EQ(file->bytes()[0], std::byte{'h'});
}

TEST(MappedFile, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& name) {
    return error_of([&] { MappedFile::open(folder / name); });
  };
  write_text(folder / "empty", "");
  ::mkfifo((folder / "pipe").c_str(), 0600);
  EXPECT_EQ(message("none"), "cannot open " + (folder / "none").string() + ": No such file or directory");
  EXPECT_EQ(message("empty"), "cannot read " + (folder / "empty").string() + ": the file is empty");
  EXPECT_EQ(message("."), "cannot read " + (folder / ".").string() + ": it is a folder");
  EXPECT_EQ(message("pipe"), "cannot read " + (folder / "pipe").string() + ": it is not a regular file");
}

}  // namespace
}  // namespace linnet
