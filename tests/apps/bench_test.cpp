// What every figure of linnet bench goes through: samples, taking turns, ratios, tables and JSON. No time is
// asserted.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "bench_device.h"
#include "bench_plot.h"
#include "bench_report.h"
#include "bench_timing.h"
#include "core/error.h"
#include "io/file.h"

namespace linnet::app {
namespace {

TEST(Samples, KnowTheirBestAndMedian) {
  EXPECT_DOUBLE_EQ((Samples{{3, 1, 2}}).best(), 1);
  EXPECT_DOUBLE_EQ((Samples{{3, 1, 2}}).median(), 2);
  EXPECT_DOUBLE_EQ((Samples{{4, 1, 2, 3}}).median(), 2.5);
  EXPECT_DOUBLE_EQ(Samples{}.best(), 0);
  EXPECT_DOUBLE_EQ(Samples{}.median(), 0);
}

TEST(Interleave, WarmsUpThenTakesTurns) {
  std::string order;
  const auto samples = interleave(
      {60, 2}, {{.run = [&] { order += 'c'; }, .least = 0}, {.run = [&] { order += 'w'; }, .least = 0}});
  EXPECT_EQ(order, "cwcwcw");
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0].seconds.size(), 2u);
  EXPECT_EQ(samples[1].seconds.size(), 2u);
}

TEST(Interleave, MeasuresOnceEvenWithoutTime) {
  const auto samples = interleave({0, 100}, {{.run = [] {}}});
  EXPECT_EQ(samples.at(0).seconds.size(), 1u);
}

TEST(Interleave, PreparesAndFinishesAroundEveryCall) {
  std::string order;
  interleave({60, 1}, {{.run = [&] { order += 'r'; },
                        .prepare = [&] { order += 'p'; },
                        .finish = [&] { order += 'f'; },
                        .least = 0}});
  EXPECT_EQ(order, "prfprf");
}

TEST(Interleave, AveragesShortCallsOverManyRepetitions) {
  int calls = 0;
  const auto samples = interleave({1, 1}, {{.run = [&] { ++calls; }, .least = 1e-3}});
  EXPECT_GT(calls, 2);
  EXPECT_LT(samples.at(0).seconds.at(0), 1e-3);
}

TEST(Reached, IsSpeedOverSpeed) {
  // 10 units in 2 s (5/s at best, 2.5/s at the median) beside 100 units in 10 s (10/s).
  const Ratio ratio = reached({{2, 4, 6}}, 10, {{10, 10, 10}}, 100);
  EXPECT_DOUBLE_EQ(ratio.best, 0.5);
  EXPECT_DOUBLE_EQ(ratio.median, 0.25);
  EXPECT_EQ(reached({}, 10, {{1}}, 1).best, 0);
  EXPECT_EQ(reached({{1}}, 10, {{1}}, 0).best, 0);
}

TEST(GpuCeilings, FollowTheCard) {
  struct Row {
    const char* name;
    int multiprocessors;
    int64_t gib, side, copy_mib;
  };
  const Row rows[] = {{"H200", 132, 140, 8192, 2048},
                      {"H100 PCIe", 114, 80, 8192, 2048},
                      {"T4", 40, 15, 4096, 512},
                      {"of few multiprocessors", 14, 8, 1024, 256},
                      {"of little memory", 14, 1, 1024, 64},
                      {"emulated", 2, 16, 128, 32}};
  for (const Row& row : rows) {
    GpuInfo card{};
    card.multiprocessors = row.multiprocessors;
    card.memory = static_cast<size_t>(row.gib) << 30;
    EXPECT_EQ(ceiling_side(card), row.side) << row.name;
    EXPECT_EQ(ceiling_copy_bytes(card) >> 20, row.copy_mib) << row.name;
  }
}

Table example() {
  Table table("speed", "Speed", {{"name", "name"}, {"us", "µs", 1}});
  table.add({"lit", 12.34});
  table.add({"softmax", {}});
  return table;
}

TEST(BenchTable, AlignsByCharactersAndRoundsForReaders) {
  EXPECT_EQ(example().text(), "Speed\n  name       µs\n  lit      12.3\n  softmax     -\n");
}

TEST(BenchTable, KeepsEveryDigitInJson) {
  EXPECT_EQ(example().json().dump(), R"([{"name":"lit","us":12.34},{"name":"softmax","us":null}])");
}

TEST(BenchTable, RefusesARowOfAnotherLength) {
  Table table("t", "T", {{"a", "a"}});
  EXPECT_THROW(table.add({1.0, 2.0}), Error);
}

TEST(BenchReport, KeepsFactsAndMeasurementsApart) {
  const auto path = std::filesystem::temp_directory_path() / "linnet-bench-report-test.json";
  Report report("model", {{"threads", 2}}, {{"batch", 1}});
  report.facts(example());
  report.measured(example());
  report.note("A note.");
  report.save(path);
  const auto json = nlohmann::json::parse(read_text_file(path, 1 << 20));
  std::filesystem::remove(path);
  EXPECT_EQ(json.at("bench"), "model");
  EXPECT_EQ(json.at("machine").at("threads"), 2);
  EXPECT_EQ(json.at("settings").at("batch"), 1);
  EXPECT_EQ(json.at("facts").at("speed").at(0).at("us"), 12.34);
  EXPECT_EQ(json.at("measured").at("speed").size(), 2u);
  EXPECT_EQ(json.at("notes").at(0), "A note.");
}

TEST(BenchReport, NumbersThatAreNoneBecomeNull) {
  Table table("t", "T", {{"a", "a"}});
  table.add({std::nan("")});
  Report report("model", nlohmann::ordered_json::object(), nlohmann::ordered_json::object());
  report.measured(table);
  EXPECT_NE(report.json().dump().find(R"("a":null)"), std::string::npos);
}

// Between 1 and 16 on the axis of powers of 4, 4 lies halfway; ten times as much is a whole decade higher.
TEST(Plot, PutsPointsOnLogarithmicAxes) {
  const std::string svg = svg_plot({{"T", "x", "y", {{"S", {{1, 10}, {4, 100}, {16, 1000}}, {1}}}}});
  EXPECT_NE(svg.find("<polyline points=\"62.0,292.0 250.0,165.0 438.0,38.0 \""), std::string::npos) << svg;
  EXPECT_NE(svg.find("cx=\"250.0\" cy=\"165.0\" r=\"5\" fill=\"white\""), std::string::npos) << "the ring";
  EXPECT_NE(svg.find(">S</text>"), std::string::npos);
}

TEST(Plot, RefusesWhatALogarithmDoesNot) {
  EXPECT_THROW(svg_plot({{"T", "x", "y", {{"S", {{1, 0}}, {}}}}}), UsageError);
}

}  // namespace
}  // namespace linnet::app
