// Another program makes a file shorter while the command reads it: that ends it, and is said.
#include <csignal>
#include <thread>

#include "cli/command.h"
#include "cli/small_model.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

class LostPages : public testing::Test {
 protected:
  // Painting for seconds, with the model mapped already.
  void wait_until_mapped(const std::string& name) const {
    const fs::path maps = fmt::format("/proc/{}/maps", painting_.id());
    while (contents(maps).find(name) == std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  TemporaryFolder folder_;
  const std::string model_ = write_small_model(folder_ / "small\n.safetensors");
  Process painting_{{"generate", "-m", "small\n.safetensors", "--dtype", "f32", "--sampler", "ddpm", "--steps",
                     "1000", "-n", "64", "--grid", "-o", "p.png"},
                    {folder_.path()}};
};

TEST_F(LostPages, AFileThatBecomesShorterIsNamed) {
  wait_until_mapped("small");
  fs::resize_file(model_, 100);
  const Result result = painting_.wait();
  EXPECT_TRUE(failed(result, 1, "small?.safetensors: another program made it shorter while it was in use"));
  EXPECT_FALSE(fs::exists(folder_ / "p.png"));
}

TEST_F(LostPages, AnotherReasonForTheSameSignalEndsItAsUsual) {
  wait_until_mapped("small");
  painting_.send(SIGBUS);
  const Result result = painting_.wait();
  EXPECT_EQ(result.signal, SIGBUS);
  EXPECT_EQ(result.err, "");
}

}  // namespace
}  // namespace linnet::test
