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

// A field of protobuf's wire format that holds bytes.
std::string field(int number, const std::string& bytes) {
  std::string result(1, static_cast<char>(number << 3 | 2));
  for (size_t left = bytes.size(); result.size() == 1 || left > 0; left >>= 7)
    result += static_cast<char>((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
  return result + bytes;
}

// A piece of a kind: 1 text, 2 what is unknown, 3 a mark such as the end.
std::string piece(const std::string& text, char kind = 1) {
  return field(1, field(1, text) + std::string("\x15\0\0\0\0\x18", 6) + kind);
}

const std::string marks = piece("<pad>", 3) + piece("</s>", 3) + piece("<unk>", 2);

std::string word(uint32_t value) {
  std::string bytes;
  for (int k = 0; k < 4; ++k) bytes += static_cast<char>(value >> (8 * k) & 0xff);
  return bytes;
}

// What normalizes texts: a double array of one block of units, the first ones these, and what it replaces by.
std::string table(const std::vector<uint32_t>& first, const std::string& texts) {
  std::string units;
  for (uint32_t i = 0; i < 256; ++i) units += word(i < first.size() ? first[i] : i);
  return field(2, word(static_cast<uint32_t>(units.size())) + units + texts);
}

Tokenizer tokenizer_of(const std::string& model) { return Tokenizer::from_bytes(model, "t.model"); }

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
  test::expect_refused("the text \"aaaaa", [&] { tokenizer.pieces(std::string(65537, 'a')); });
  test::expect_refused("no tokenizer here", [] { Tokenizer::open(LINNET_TEST_DATA "/images"); });
  test::expect_refused("no SentencePiece model", [] { Tokenizer::open(folder / "texts.json"); });
  const TemporaryFolder empty;
  std::ofstream(empty / "spiece.model").flush();
  test::expect_refused("spiece.model", [&] { Tokenizer::open(empty.path()); });
}

// libsentencepiece recurses once for each byte.
TEST(Tokenizer, APieceThatIsTooLongIsRefusedBeforeItIsLoaded) {
  EXPECT_EQ(tokenizer_of(marks + piece(std::string(1024, 'a'))).size(), 4);
  EXPECT_EQ(test::refusal([] { tokenizer_of(marks + piece(std::string(200'000, 'a'))); }),
            "t.model: a piece of this tokenizer has 200000 bytes, and at most 1024 are read");
}

// To libsentencepiece it ends there, and one that is empty is an exception of its own kind.
TEST(Tokenizer, APieceWithAZeroByteIsRefused) {
  for (const std::string& text : {std::string("\0a", 2), std::string("a\0b", 3)})
    test::expect_refused("t.model: a piece of this tokenizer has a zero byte",
                         [&] { tokenizer_of(marks + piece("b") + piece(text)); });
}

TEST(Tokenizer, MorePiecesThanAnyTokenizerHasAreRefused) {
  std::string model;
  for (int i = 0; i < 1'000'001; ++i) model += field(1, "");
  test::expect_refused("t.model: this tokenizer has more than 1000000 pieces", [&] { tokenizer_of(model); });
}

TEST(Tokenizer, ItsOwnTestsAreShort) {
  const std::string sample = field(1, field(1, std::string(600'000, 'a')));
  test::expect_refused("t.model: this tokenizer's own tests have more than 1048576 bytes",
                       [&] { tokenizer_of(marks + piece("a") + field(4, sample) + field(4, sample)); });
}

TEST(Tokenizer, ATableThatReplacesCharactersIsLookedThrough) {
  // From unit 0 over 'a' to the leaf at unit 98, which names the text that begins at byte 2.
  std::vector<uint32_t> units(99);
  units[0] = 1 << 10;                        // the next unit is 0 ^ 1 ^ 'a'
  units['a' ^ 1] = 'a' | 0x100 | (2 << 10);  // whose leaf is beside it
  units['a' ^ 1 ^ 2] = 0x80000000u | 2;
  const std::string texts("b\0c\0", 4);
  const auto with = [&](const std::string& inner, int number = 3) {
    return marks + field(number, inner) + piece("c");
  };
  EXPECT_EQ(tokenizer_of(with(table(units, texts))).pieces("a").back().text, "c");

  const auto refused = [&](const std::string& inner, int number = 3) {
    EXPECT_EQ(test::refusal([&] { tokenizer_of(with(inner, number)); }),
              "t.model: the table by which this tokenizer normalizes texts is damaged");
  };
  refused(field(2, "abc"));
  refused(field(2, word(0) + texts));
  refused(field(2, word(1024) + std::string(1023, '\0')));
  refused(field(2, word(0xffffffff) + std::string(1024, '\0')));
  refused(table(units, "b"));                            // the leaf's text is not there,
  refused(table(units, "b\0c"));                         // or has no end,
  refused(table(units, texts + std::string(257, 'd')));  // or is endless
  units['a' ^ 1] |= 1 << 20;                             // leads out of the block
  refused(table(units, texts));
  refused(table(units, texts), 5);  // what turns texts back, too
}

TEST(Tokenizer, EveryPrefixAndEveryChangedByteIsReadOrRefused) {
  const std::string model = marks + piece("a") + field(3, table({1 << 10}, std::string("b\0", 2))) + piece("b");
  for (size_t i = 0; i < model.size(); ++i) {
    std::string changed = model;
    changed[i] = static_cast<char>(~changed[i]);
    for (const std::string& bytes : {model.substr(0, i), changed}) try {
        (void)tokenizer_of(bytes).ids("ab", 300);
      } catch (const Error&) {
      }
  }
}

TEST(Tokenizer, APointerOfGitLfsIsNamed) {
  test::expect_refused("t.model: this is a pointer of Git LFS, not the tokenizer that it points to",
                       [] { tokenizer_of("version https://git-lfs.github.com/spec/v1\noid"); });
}

}  // namespace
}  // namespace linnet
