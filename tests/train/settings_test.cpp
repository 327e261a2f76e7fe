// The list of settings is what a configuration may say, and what the document has.
#include "train/settings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "support/refusal.h"

namespace linnet {
namespace {

using Names = std::set<std::string>;

// What the refusal of an unknown key says that a table may hold.
Names read_from(const std::string& table, const std::string& kind) {
  const std::string sentence = test::refusal([&] {
    parse_train_config("[data]\npath = 'x'\n", {"model.kind=" + kind, table + ".00000000000000=1"});
  });
  const std::string mark = "; known: ";
  const size_t begin = sentence.find(mark);
  EXPECT_NE(begin, std::string::npos) << sentence;
  std::istringstream list(sentence.substr(begin + mark.size()));
  Names names;
  for (std::string name; std::getline(list >> std::ws, name, ',');) names.insert(name);
  return names;
}

Names listed(const std::string& table) {
  Names names;
  for (const Setting& setting : list_settings()) {
    if (setting.table != table) continue;
    EXPECT_TRUE(names.insert(setting.key).second) << setting.key;
  }
  return names;
}

TEST(Settings, AreThoseThatAConfigurationMaySay) {
  for (const std::string table : {"data", "text", "train", "distil", "output"})
    EXPECT_EQ(listed(table), read_from(table, "pixart")) << table;
  Names models = read_from("model", "dit");
  models.merge(read_from("model", "pixart"));
  EXPECT_EQ(listed("model"), models);
}

TEST(Settings, AreWhatTheListSaysUnlessTheyAreSaid) {
  for (const std::string kind : {"dit", "pixart"}) {
    const std::vector<std::string> bare = {"data.path=x", "model.kind=" + kind};
    const TrainConfig usual = parse_train_config("", bare);
    for (const Setting& s : list_settings()) {
      if (s.table != "model" || s.key == "kind" || s.key == "preset" ||
          !read_from("model", kind).contains(s.key))
        continue;
      std::vector<std::string> said = bare;
      said.push_back("model." + s.key + "=" + s.usual);
      EXPECT_TRUE(parse_train_config("", said).model == usual.model) << s.key;
    }
  }
}

TEST(Settings, AreListedInAHundredColumns) {
  std::istringstream lines(describe_settings());
  for (std::string line; std::getline(lines, line);)
    EXPECT_LE(std::ranges::count_if(line, [](char c) { return (c & 0xC0) != 0x80; }), 100) << line;
}

TEST(Settings, StandInTheDocument) {
  std::ifstream file(LINNET_TEST_DATA "/../../docs/training.md");
  std::ostringstream document;
  document << file.rdbuf();
  std::istringstream lines(describe_settings());
  std::string block;  // of Markdown
  for (std::string line; std::getline(lines, line);) block += line.empty() ? "\n" : "    " + line + "\n";
  EXPECT_NE(document.str().find(block), std::string::npos)
      << "docs/training.md has not what `linnet train --settings` prints";
}

}  // namespace
}  // namespace linnet
