// What the public interface refuses: always with its own errors, and one sentence.
#include <linnet/linnet.h>

#include <gtest/gtest.h>

#include <fstream>

#include <sys/wait.h>
#include <unistd.h>

#include "io/safetensors.h"
#include "nn/parameter.h"
#include "store/dit_file.h"
#include "store/pixart_file.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;
using test::expect_refused;

// Expects a UsageError whose sentence holds that part.
void expect_wrong_use(const std::string& part, const std::function<void()>& body) {
  expect_refused(part, body);
  EXPECT_THROW(body(), UsageError) << part;
}

std::string reference(const std::string& name) {
  return fmt::format("{}/reference/{}.model.safetensors", LINNET_TEST_DATA, name);
}

class Refusals : public testing::Test {
 protected:
  Refusals() {
    DiT dit(test::tiny_dit_of_pixels());
    nn::initialize(dit, 1);
    save_dit(pixels, dit, DType::f32);
  }
  // A small PixArt of pixels, for the text encoder of the test data.
  fs::path pixels_of_texts() const {
    PixArtConfig config = read_pixart_config(find_pixart_weights(Weights::open(reference("pixart_pipeline"))));
    config.in_channels = 3;
    PixArt model(config);
    nn::initialize(model, 1);
    save_pixart(folder / "texts.safetensors", model, DType::f32);
    return folder / "texts.safetensors";
  }

  TemporaryFolder folder;
  const fs::path pixels = folder / "model.safetensors";
};

TEST_F(Refusals, PathsThatLeadNowhereAreErrors) {
  fs::create_symlink("loop", folder / "loop");
  const std::pair<fs::path, const char*> places[] = {{folder / "loop", "Too many levels of symbolic links"},
                                                     {std::string(5000, 'x'), "File name too long"},
                                                     {folder / "none", "No such file or directory"},
                                                     {"", "No such file or directory"}};
  for (const auto& [path, why] : places) {
    expect_refused(why, [&, path = path] { Model{path}; });
    expect_refused(why, [&, path = path] { TextModel{path}; });
  }
  const fs::path texts = pixels_of_texts(), tokenizer = LINNET_TEST_DATA "/tokenizer", loop = folder / "loop";
  expect_refused("Too many levels", [&] { TextModel(texts, {.text_encoder = loop, .tokenizer = tokenizer}); });
  expect_refused("Too many levels",
                 [&] { TextModel(texts, {.text_encoder = reference("t5"), .tokenizer = loop}); });
  const std::string latents = reference("dit_softmax");
  expect_refused("Too many levels", [&] { Model(latents, {.autoencoder = loop}); });
}

TEST_F(Refusals, ALinkToItselfInAFolderIsAnError) {
  fs::create_directory(folder / "model");
  fs::create_symlink("model.safetensors", folder / "model/model.safetensors");
  expect_refused("this folder holds no weights", [&] { Model(folder / "model"); });
}

// Everything is permitted to the superuser, so the child stops being that.
TEST_F(Refusals, AFolderThatMayNotBeEnteredIsAnError) {
  fs::create_directory(folder / "shut");
  fs::copy_file(pixels, folder / "shut/model.safetensors");
  fs::permissions(folder / "shut", fs::perms::none);
  fs::permissions(folder.path(), fs::perms::all);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(2);
    const auto refused = [&](const fs::path& path) {
      return test::refusal([&] { Model{path}; }).ends_with("Permission denied") &&
             test::refusal([&] { TextModel{path}; }).ends_with("Permission denied");
    };
    ::_exit(refused(folder / "shut") && refused(folder / "shut/model.safetensors") ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  fs::permissions(folder / "shut", fs::perms::owner_all);
  EXPECT_EQ(status, 0);
}

TEST_F(Refusals, AModelOfTheOtherKindIsNamed) {
  expect_wrong_use("this is a text-to-image model: use TextModel", [] { Model(reference("pixart_pipeline")); });
  expect_wrong_use("this is a model of classes: use Model", [&] { TextModel{pixels}; });
}

TEST_F(Refusals, AnAutoencoderHasNothingToDecodeOfPixels) {
  expect_wrong_use("this model paints pixels", [&] { Model(pixels, {.autoencoder = "/nowhere"}); });
  const TextModelOptions parts{
      .text_encoder = reference("t5"), .tokenizer = LINNET_TEST_DATA "/tokenizer", .autoencoder = "/nowhere"};
  expect_wrong_use("this model paints pixels", [&] { TextModel(pixels_of_texts(), parts); });
  expect_wrong_use("this model paints pixels", [] { Model::builtin({.autoencoder = "/nowhere"}); });
  expect_wrong_use("this model paints pixels", [] { TextModel::builtin({.autoencoder = "/nowhere"}); });
}

TEST_F(Refusals, TheModelOfTheLibraryTakesNoPartsFromElsewhere) {
  expect_wrong_use("of its own", [] { TextModel::builtin({.text_encoder = reference("t5")}); });
  expect_wrong_use("of its own", [] { TextModel::builtin({.tokenizer = LINNET_TEST_DATA "/tokenizer"}); });
}

TEST_F(Refusals, ANumberThatIsNoPrecisionIsAWrongUse) {
  for (const int number : {5, 255})
    expect_wrong_use(fmt::format("there is no precision of number {}", number),
                     [&] { Model(pixels, {.precision = static_cast<Precision>(number)}); });
  expect_wrong_use("there is no precision",
                   [] { TextModel::builtin({.precision = static_cast<Precision>(5)}); });
}

TEST_F(Refusals, NamesAreShownWithoutTheirEscapes) {
  expect_wrong_use(R"(not "\x1b[2J")", [&] { Model(pixels, {.device = "\x1b[2J"}); });
  Request request;
  request.sampler = "\x1b[2J";
  expect_wrong_use(R"(there is no sampler "\x1b[2J")", [&] { Model(pixels).paint(request); });
}

}  // namespace
}  // namespace linnet
