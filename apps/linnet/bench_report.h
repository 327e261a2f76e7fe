// What a benchmark found, as tables on standard output and as one JSON document: both come from the same cells,
// and what holds on every machine (shapes, operation counts) is kept apart from what was measured on this one.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace linnet::app {

struct Column {
  std::string key;    ///< in JSON
  std::string title;  ///< in the table, with its unit
  int decimals = 0;
};

/// What stands in a table: nothing (not measured: a dash, and null in JSON), a text or a number.
struct Cell {
  enum class Kind : uint8_t { nothing, text, number };

  Cell() = default;
  Cell(std::string value) : kind(Kind::text), text(std::move(value)) {}
  Cell(const char* value) : Cell(std::string(value)) {}
  Cell(double value) : kind(Kind::number), number(value) {}

  Kind kind = Kind::nothing;
  std::string text;
  double number = 0;
};

class Table {
 public:
  Table(std::string key, std::string title, std::vector<Column> columns);

  /// One cell a column.
  void add(std::vector<Cell> row);

  const std::string& key() const { return key_; }
  std::string text() const;
  /// An array of objects.
  nlohmann::ordered_json json() const;

 private:
  std::string key_, title_;
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

class Report {
 public:
  /// `machine` and `settings` are objects.
  Report(std::string name, nlohmann::ordered_json machine, nlohmann::ordered_json settings);

  /// Each prints what it takes.
  void facts(const Table& table);
  void measured(const Table& table);
  void note(const std::string& sentence);

  const nlohmann::ordered_json& json() const { return json_; }
  /// Writes the document atomically; does nothing for an empty path.
  void save(const std::filesystem::path& path) const;

 private:
  nlohmann::ordered_json json_;
};

}  // namespace linnet::app
