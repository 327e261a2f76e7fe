// Texts as numbers: what SentencePiece makes of them, cut texts, and files that are no tokenizer.
#include "io/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path folder = LINNET_TEST_DATA "/tokenizer";

TEST(Tokenizer, GivesTheIdsThatSentencePieceGives) {
  const Tokenizer tokenizer = Tokenizer::open(folder);
  std::ifstream in(folder / "texts.json");
  for (const auto& entry : nlohmann::json::parse(in)) {
    const auto expected = entry["ids"].get<std::vector<int64_t>>();
    const Tokenizer::Ids ids = tokenizer.ids(entry["text"], 300);
    EXPECT_EQ(ids.values, expected) << entry["text"];
    EXPECT_FALSE(ids.cut);
  }
  EXPECT_EQ(tokenizer.end_id(), 1);
  EXPECT_EQ(tokenizer.padding_id(), 0);
}

TEST(Tokenizer, ATextThatIsTooLongIsCutBeforeItsEnd) {
  const Tokenizer tokenizer = Tokenizer::open(folder / "spiece.model");
  const auto whole = tokenizer.ids("two red stars above a blue ring", 300).values;
  EXPECT_FALSE(tokenizer.ids("two red stars above a blue ring", static_cast<int64_t>(whole.size())).cut);
  const Tokenizer::Ids cut = tokenizer.ids("two red stars above a blue ring", 5);
  EXPECT_TRUE(cut.cut);
  EXPECT_EQ(cut.values, (std::vector<int64_t>{whole[0], whole[1], whole[2], whole[3], 1}));
}

TEST(Tokenizer, NamesPieces) {
  const auto pieces = Tokenizer::open(folder).pieces("a star");
  std::string all;
  for (const auto& piece : pieces) all += piece.text;
  EXPECT_EQ(all, "▁a▁star");
}

TEST(Tokenizer, RefusesWhatIsNoTextAndWhatIsNoTokenizer) {
  const Tokenizer tokenizer = Tokenizer::open(folder);
  test::expect_refused("is not UTF-8", [&] { tokenizer.ids("caf\xe9", 300); });
  test::expect_refused("no tokenizer here", [] { Tokenizer::open(LINNET_TEST_DATA "/images"); });
  test::expect_refused("no SentencePiece model", [] { Tokenizer::open(folder / "texts.json"); });
  const TemporaryFolder empty;
  std::ofstream(empty / "spiece.model").flush();
  test::expect_refused("spiece.model", [&] { Tokenizer::open(empty.path()); });
}

}  // namespace
}  // namespace linnet
