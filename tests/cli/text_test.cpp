// Texts on the command line: linnet tokenize, linnet forward --part text_encoder.
#include <fstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "io/safetensors.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

TEST(Tokenize, ShowsPiecesAndIds) {
  const Result result = run({"tokenize", data_file("tokenizer"), "two stars"});
  EXPECT_TRUE(succeeded(result));
  EXPECT_EQ(result.out, "     47  ▁t\n     17  w\n     13  o\n     43  ▁star\n     18  s\n      1  (end)\n");
  // As it is painted: in small letters unless told otherwise.
  EXPECT_EQ(run({"tokenize", data_file("tokenizer"), " Two Stars "}).out, result.out);
  EXPECT_NE(run({"tokenize", data_file("tokenizer"), "Two Stars", "--cleaning", "strip"}).out, result.out);
  EXPECT_TRUE(failed(run({"tokenize", data_file("tokenizer"), "two stars", "--cleaning", "soap"}), 2,
                     "lower or strip"));
  EXPECT_TRUE(failed(run({"tokenize", data_file("tokenizer"), "caf\xe9"}), 1, "not UTF-8"));
  EXPECT_TRUE(failed(run({"tokenize", data_file("images"), "a"}), 1, "no tokenizer here"));
}

TEST(Forward, TheTextEncoderGivesItsLastHiddenState) {
  const TemporaryFolder folder;
  const fs::path weights = data_file("reference/t5.model.safetensors"),
                 io = data_file("reference/t5.io.safetensors");
  fs::create_directories(folder / "text_encoder");
  fs::copy_file(weights, folder / "text_encoder/model.safetensors");
  std::ofstream(folder / "text_encoder/config.json") << SafetensorsFile::open(weights).metadata().at("config");
  const Arguments arguments = {"forward", folder.path().string(), io.string(), "--part", "text_encoder",
                               "-o",      folder / "out"};
  ASSERT_TRUE(succeeded(run(arguments)));
  EXPECT_LT(relative_error(SafetensorsFile::open(folder / "out").tensor("last_hidden_state"),
                           SafetensorsFile::open(io).tensor("last_hidden_state")),
            1e-5);
  write_safetensors(folder / "wrong", {{"input_ids", Tensor::full({1, 3}, 1.0f)}});
  EXPECT_TRUE(
      failed(run({"forward", folder.path(), folder / "wrong", "--part", "text_encoder", "-o", folder / "x"}), 1,
             "input_ids"));
  EXPECT_FALSE(fs::exists(folder / "x"));
}

}  // namespace
}  // namespace linnet::test
