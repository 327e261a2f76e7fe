#include "bench_report.h"

#include <fmt/format.h>

#include "core/error.h"
#include "io/file.h"

namespace linnet::app {
namespace {

std::string show(const Cell& cell, int decimals) {
  switch (cell.kind) {
    case Cell::Kind::nothing: return "-";
    case Cell::Kind::text: return cell.text;
    case Cell::Kind::number: return fmt::format("{:.{}f}", cell.number, decimals);
  }
  return {};
}

nlohmann::ordered_json to_json(const Cell& cell) {
  switch (cell.kind) {
    case Cell::Kind::nothing: return nullptr;
    case Cell::Kind::text: return cell.text;
    case Cell::Kind::number: return cell.number;
  }
  return nullptr;
}

// Characters, not bytes: µ, × and ² are two bytes wide and one column.
size_t width_of(const std::string& text) {
  size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xc0u) != 0x80u;
  return width;
}

std::string pad(const std::string& text, size_t width, bool right) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return right ? space + text : text + space;
}

}  // namespace

Table::Table(std::string key, std::string title, std::vector<Column> columns)
    : key_(std::move(key)), title_(std::move(title)), columns_(std::move(columns)) {}

void Table::add(std::vector<Cell> row) {
  check(row.size() == columns_.size(), "a row of {} cells does not fit the {} columns of \"{}\"", row.size(),
        columns_.size(), title_);
  rows_.push_back(std::move(row));
}

std::string Table::text() const {
  std::string header, body;
  std::vector<size_t> widths;
  std::vector<bool> right;
  for (size_t i = 0; i < columns_.size(); ++i) {
    widths.push_back(width_of(columns_[i].title));
    right.push_back(false);
    for (const auto& row : rows_) {
      widths[i] = std::max(widths[i], width_of(show(row[i], columns_[i].decimals)));
      if (row[i].kind == Cell::Kind::number) right[i] = true;
    }
    header += "  " + pad(columns_[i].title, widths[i], right[i]);
  }
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += "  " + pad(show(row[i], columns_[i].decimals), widths[i], right[i]);
    body += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return fmt::format("{}\n{}\n{}", title_, header.substr(0, header.find_last_not_of(' ') + 1), body);
}

nlohmann::ordered_json Table::json() const {
  auto rows = nlohmann::ordered_json::array();
  for (const auto& row : rows_) {
    nlohmann::ordered_json object;
    for (size_t i = 0; i < row.size(); ++i) object[columns_[i].key] = to_json(row[i]);
    rows.push_back(std::move(object));
  }
  return rows;
}

Report::Report(std::string name, nlohmann::ordered_json machine, nlohmann::ordered_json settings) {
  json_["bench"] = std::move(name);
  json_["machine"] = std::move(machine);
  json_["settings"] = std::move(settings);
  json_["facts"] = nlohmann::ordered_json::object();
  json_["measured"] = nlohmann::ordered_json::object();
  json_["notes"] = nlohmann::ordered_json::array();
}

void Report::facts(const Table& table) {
  fmt::print("\n{}", table.text());
  json_["facts"][table.key()] = table.json();
}

void Report::measured(const Table& table) {
  fmt::print("\n{}", table.text());
  json_["measured"][table.key()] = table.json();
  std::fflush(stdout);
}

void Report::note(const std::string& sentence) {
  fmt::print("{}\n", sentence);
  json_["notes"].push_back(sentence);
}

void Report::save(const std::filesystem::path& path) const {
  if (path.empty()) return;
  const std::string text = json_.dump(2) + "\n";
  write_file_atomically(path, [&](std::FILE* file) { write_bytes(file, text.data(), text.size()); });
}

}  // namespace linnet::app
