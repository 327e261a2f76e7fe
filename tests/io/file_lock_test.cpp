#include "io/file_lock.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

TEST(FileLock, OneHoldsItAtATimeAndTheFileGoesWithIt) {
  const TemporaryFolder folder;
  auto first = FileLock::take(folder / "lock");
  ASSERT_TRUE(first);
  EXPECT_FALSE(FileLock::take(folder / "lock"));
  first.reset();
  EXPECT_FALSE(std::filesystem::exists(folder / "lock"));
  EXPECT_TRUE(FileLock::take(folder / "lock"));
}

TEST(FileLock, AFileThatAKillLeftBehindKeepsNobodyOut) {
  const TemporaryFolder folder;
  std::ofstream(folder / "lock") << "left";
  EXPECT_TRUE(FileLock::take(folder / "lock"));
}

TEST(FileLock, SaysWhyTheFileCannotBeMade) {
  const TemporaryFolder folder;
  EXPECT_THROW(FileLock::take(folder / "none/lock"), Error);
}

}  // namespace
}  // namespace linnet
