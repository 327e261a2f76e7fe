// What linnet generate shows of pictures that it still paints: a file beside them, and on a terminal.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <thread>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

// A terminal that is 80 characters wide, unless told otherwise, and 40 high and remembers all that it is sent.
class Terminal {
 public:
  explicit Terminal(unsigned short columns = 80) : ours_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    if (ours_ < 0 || ::grantpt(ours_) != 0 || ::unlockpt(ours_) != 0) return;
    const winsize size{40, columns, 0, 0};
    ::ioctl(ours_, TIOCSWINSZ, &size);
    theirs_ = ::open(::ptsname(ours_), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (theirs_ >= 0) reader_ = std::thread([this] { remember(); });
  }
  ~Terminal() { sent(); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  bool exists() const { return theirs_ >= 0; }
  int descriptor() const { return theirs_; }
  /// To be asked once, when whoever writes to it has ended.
  std::string sent() {
    if (theirs_ >= 0) ::close(theirs_);
    theirs_ = -1;
    if (reader_.joinable()) reader_.join();
    if (ours_ >= 0) ::close(ours_);
    ours_ = -1;
    return text_;
  }

 private:
  void remember() {
    char block[4096];
    for (ssize_t count; (count = ::read(ours_, block, sizeof block)) > 0;)
      text_.append(block, static_cast<size_t>(count));
  }

  int ours_, theirs_ = -1;
  std::string text_;
  std::thread reader_;
};

class Preview : public testing::Test {
 protected:
  Arguments arguments(const Arguments& more) const {
    Arguments all = {"generate", "--model", model_, "--seed", "5"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Result generate(const Arguments& more) const { return run(arguments(more), {folder_.path()}); }
  // Both outputs to a terminal that calls itself `kind`.
  std::string on_terminal(const Arguments& more, const char* kind, unsigned short columns = 80) const {
    Terminal terminal(columns);
    if (!terminal.exists()) return {};
    const int descriptor = terminal.descriptor();
    const auto in_child = [descriptor, kind] {
      ::dup2(descriptor, STDOUT_FILENO);
      ::dup2(descriptor, STDERR_FILENO);
      for (const char* name : {"KITTY_WINDOW_ID", "TERM_PROGRAM", "TMUX"}) ::unsetenv(name);
      ::setenv("TERM", kind, 1);
    };
    EXPECT_EQ(run(arguments(more), {folder_.path(), in_child}).code, 0);
    return terminal.sent();
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names = listing(folder_.path());
    std::erase(names, "small.safetensors");
    return names;
  }
  // Paints until the preview is there, and returns it; then the run is ended.
  Image seen_while_painting(const Arguments& more, const std::string& name) const {
    Process process(arguments(more), {folder_.path()});
    for (int i = 0; i < 6000 && !fs::exists(folder_ / name); ++i) ::usleep(10'000);
    const Image image = read_image(folder_ / name);
    fs::remove(folder_ / name);
    for (int i = 0; i < 6000 && !fs::exists(folder_ / name); ++i) ::usleep(10'000);
    EXPECT_TRUE(fs::exists(folder_ / name)) << "it is not written again";
    process.send(SIGINT);
    EXPECT_EQ(process.wait().code, 130);
    return image;
  }

  TemporaryFolder folder_;
  std::string model_ = write_small_model(folder_ / "small.safetensors");
};

const Arguments slowly = {"--steps", "1000", "--preview-every", "2"};

Arguments with(Arguments all, const Arguments& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST_F(Preview, ATerminalSeesTheStagesOfPaintingFromTexts) {
  copy_text_model(folder_ / "model");
  model_ = "model";
  const std::string sent = on_terminal({"a star", "--steps", "3", "-o", "a.png"}, "xterm");
  if (sent.empty()) GTEST_SKIP() << "there is no terminal to be had";
  size_t at = 0;  // one after the other
  for (const char* stage : {"text encoder, block 1 of 3", "step 3 of 3", "decoding", "1 picture in"}) {
    at = sent.find(stage, at);
    ASSERT_NE(at, std::string::npos) << stage << "\n" << sent;
  }
}

TEST_F(Preview, ANarrowTerminalSeesThePerCentAlone) {
  const std::string sent = on_terminal({"--steps", "3", "-o", "a.png"}, "xterm", 12);
  if (sent.empty()) GTEST_SKIP() << "there is no terminal to be had";
  EXPECT_NE(sent.find("\r\033[K100%\r"), std::string::npos) << sent;
  EXPECT_EQ(sent.find("▏"), std::string::npos) << sent;
}

TEST_F(Preview, AFileBesideTheOutputIsWrittenAgainAndAgainAndGoesWhenPaintingEnds) {
  const Image image =
      seen_while_painting(with(slowly, {"-n", "64", "--batch", "1", "-o", "p.webp"}), "p.preview.png");
  EXPECT_EQ(image.width, 16);
  EXPECT_EQ(image.height, 16);
  EXPECT_FALSE(fs::exists(folder_ / "p.preview.png"));
  EXPECT_FALSE(fs::exists(folder_ / "p.preview.png.partial"));
}

TEST_F(Preview, SeveralPicturesAtOnceAreASheet) {
  const Image image = seen_while_painting(
      with(slowly, {"-n", "8", "--batch", "4", "--columns", "2", "-o", "p.png"}), "p.preview.png");
  EXPECT_EQ(image.width, 2 * (96 + 4) + 4);
  EXPECT_EQ(image.height, image.width);
}

TEST_F(Preview, AFoldersIsBesideIt) {
  seen_while_painting(with(slowly, {"-n", "8", "-o", "samples/"}), "samples.preview.png");
  EXPECT_EQ(files(), std::vector<std::string>{"samples"});
}

TEST_F(Preview, ChangesNoPicture) {
  ASSERT_TRUE(succeeded(generate({"--steps", "4", "-o", "a.png"})));
  const Result result =
      generate({"--steps", "4", "--preview-every", "1", "--preview", "blocks", "-o", "b.png"});
  ASSERT_TRUE(succeeded(result));
  EXPECT_EQ(result.out.find('\033'), std::string::npos);
  EXPECT_EQ(contents(folder_ / "a.png"), contents(folder_ / "b.png"));
  EXPECT_EQ(files(), (std::vector<std::string>{"a.png", "b.png"}));
}

TEST_F(Preview, OfLatentsIsAPixelEach) {
  DiTConfig config = small_config();
  config.in_channels = 4;
  config.input_size = 8;
  write_small_model(folder_ / "small.safetensors", config, false);
  copy_model("vae_plain", folder_ / "vae", "diffusion_pytorch_model.safetensors");
  const Image image = seen_while_painting(
      with(slowly, {"-n", "64", "--batch", "1", "--vae", "vae", "-o", "p.png", "--memory", "1M"}),
      "p.preview.png");
  EXPECT_EQ(image.width, 8);
  EXPECT_EQ(image.height, 8);
}

TEST_F(Preview, PaintingGoesOnWithoutOneThatIsTooLarge) {
  const Result result = generate({"-n", "330", "--batch", "330", "--steps", "2", "--cfg", "1", "--columns", "1",
                                  "--preview-every", "1", "-o", "p/"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "no more previews: a contact sheet of 104 x 33004 pixels is too large\n");
  EXPECT_EQ(listing(folder_ / "p").size(), 330u);
}

TEST_F(Preview, WhatMakesNoSenseIsRefused) {
  EXPECT_TRUE(failed(generate({"--preview-every", "0", "-o", "p.png"}), 2, "from 1 on, not 0"));
  EXPECT_TRUE(failed(generate({"--preview-every", "-3", "-o", "p.png"}), 2, "from 1 on, not -3"));
  EXPECT_TRUE(failed(generate({"--preview-every", "many", "-o", "p.png"}), 2, "many"));
  EXPECT_TRUE(failed(generate({"--preview-every", "2", "--latents-out", "l"}), 2, "-o out.png"));
  EXPECT_TRUE(failed(generate({"--preview", "sixel", "-o", "p.png"}), 2, "blocks, not \"sixel\""));
  fs::create_directories(folder_ / "p.preview.png");
  EXPECT_TRUE(failed(generate({"--preview-every", "2", "-o", "p.png"}), 1, "p.preview.png"));
  EXPECT_FALSE(fs::exists(folder_ / "p.png"));
}

TEST_F(Preview, ReplacesOneThatAKilledRunLeftAndNothingElse) {
  Process process(arguments(with(slowly, {"-n", "64", "--batch", "1", "-o", "p.png"})), {folder_.path()});
  for (int i = 0; i < 6000 && !fs::exists(folder_ / "p.preview.png"); ++i) ::usleep(10'000);
  process.send(SIGKILL);
  process.wait();
  ASSERT_TRUE(fs::exists(folder_ / "p.preview.png"));
  EXPECT_TRUE(succeeded(generate({"--steps", "2", "--preview-every", "1", "-o", "p.png"})));
  EXPECT_FALSE(fs::exists(folder_ / "p.preview.png"));

  fs::copy_file(folder_ / "p.png", folder_ / "own.preview.png");
  const std::string own = contents(folder_ / "own.preview.png");
  EXPECT_TRUE(failed(generate({"--steps", "2", "--preview-every", "1", "-o", "own.png"}), 2,
                     "own.preview.png is there already"));
  EXPECT_EQ(contents(folder_ / "own.preview.png"), own);
  EXPECT_FALSE(fs::exists(folder_ / "own.png"));
}

TEST_F(Preview, HalfBlocksAreDrawnInPlaceAboveTheBar) {
  const std::string sent =
      on_terminal({"--steps", "4", "--preview", "blocks", "-o", "p.png"}, "xterm-256color");
  if (sent.empty()) GTEST_SKIP() << "no terminal can be made here";
  EXPECT_EQ(sent.find("\033[8A"), std::string::npos) << "the first and only one has none to replace";
  EXPECT_NE(sent.find("▀\033[0m\r\n"), std::string::npos);
  EXPECT_NE(sent.find("step 4 of 4"), std::string::npos);
  const std::string twice =
      on_terminal({"--steps", "10", "--preview", "blocks", "-o", "p.png"}, "xterm-256color");
  EXPECT_NE(twice.find("\033[8A\033[J\033[38;2;"), std::string::npos) << "16 pixels are 8 rows";
}

TEST_F(Preview, ATerminalThatShowsPicturesGetsThemUnasked) {
  const std::string kitty = on_terminal({"--steps", "4", "-o", "p.png"}, "xterm-kitty");
  if (kitty.empty()) GTEST_SKIP() << "no terminal can be made here";
  EXPECT_NE(kitty.find("\033_Ga=T,f=100,"), std::string::npos);
  const std::string off = on_terminal({"--steps", "4", "--preview", "off", "-o", "p.png"}, "xterm-kitty");
  EXPECT_EQ(off.find("\033_G"), std::string::npos);
  const std::string other = on_terminal({"--steps", "4", "-o", "p.png"}, "xterm-256color");
  EXPECT_EQ(other.find("\033_G"), std::string::npos);
  EXPECT_EQ(other.find("▀"), std::string::npos);
}

}  // namespace
}  // namespace linnet::test
