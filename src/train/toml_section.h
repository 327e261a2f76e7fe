// A table of a TOML configuration, read key by key: unknown keys are refused with the nearest known one, so
// that a misspelt setting never passes silently.
#pragma once

#include <toml++/toml.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace linnet {

/// "; did you mean "steps"?", or all that is known.
std::string suggestion(const std::string& name, const std::vector<std::string>& known);

/// A configuration before it is read: its tables, the settings that the file says, by "table.key", and of those
/// that the command line gave what was typed.
struct ConfigTables {
  toml::table tables;
  std::set<std::string> in_file = {};
  std::map<std::string, std::string> typed = {};
};

/// Takes known keys out of a table; what is left at the end is unknown. A key that is not there leaves the
/// value as it is; all throw UsageError on a value of another kind.
class Section {
 public:
  Section(ConfigTables& root, std::string name);

  /// What was typed is a text, also where TOML would read a number or a date: a folder may be called 2024.
  void take(const char* key, std::string& value);
  void take(const char* key, bool& value) { get<bool>(key, value, "true or false"); }
  void take(const char* key, int64_t& value) { get<int64_t>(key, value, "a whole number"); }
  void take(const char* key, double& value);
  void take(const char* key, std::vector<std::string>& value);
  /// As a walk over settings calls it (train/settings.h).
  template <class T>
  void setting(const char* key, T& value, const char* /*meaning*/) {
    take(key, value);
  }

  bool has(const char* key) const { return find(key) != nullptr; }
  /// Throws UsageError if there are other keys.
  void done() const;

 private:
  template <class T>
  void get(const char* key, T& value, const char* kind) {
    known_.emplace_back(key);
    if (const toml::node* node = find(key)) {
      const auto found = node->value_exact<T>();
      if (!found) refuse(key, kind);
      value = *found;
    }
  }
  const toml::node* find(const char* key) const { return table_ ? table_->get(key) : nullptr; }
  [[noreturn]] void refuse(const char* key, const char* kind) const;

  std::string name_;
  const std::map<std::string, std::string>& typed_;
  toml::table* table_ = nullptr;
  std::vector<std::string> known_;
};

}  // namespace linnet
