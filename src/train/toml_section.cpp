#include "train/toml_section.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/text.h"

namespace linnet {

std::string suggestion(const std::string& name, const std::vector<std::string>& known) {
  const std::string near = nearest(name, known);
  return near.empty() ? fmt::format("; known: {}", fmt::join(known, ", "))
                      : fmt::format("; did you mean \"{}\"?", near);
}

Section::Section(ConfigTables& root, std::string name) : name_(std::move(name)), typed_(root.typed) {
  if (toml::node* node = root.tables.get(name_)) {
    table_ = node->as_table();
    if (!table_) throw UsageError(fmt::format("configuration: [{}] must be a table", name_));
  }
}

void Section::take(const char* key, std::string& value) {
  const auto typed = typed_.find(name_ + "." + key);
  if (const toml::node* node = find(key); node && !node->is_string() && typed != typed_.end())
    table_->insert_or_assign(key, typed->second);  // so that it is written as a text, too
  get<std::string>(key, value, "a text");
}

void Section::take(const char* key, double& value) {
  known_.emplace_back(key);
  if (const toml::node* node = find(key)) {
    const auto found = node->value<double>();  // takes whole numbers too
    if (!found || !std::isfinite(*found)) refuse(key, "a number");
    value = *found;
  }
}

void Section::take(const char* key, std::vector<std::string>& value) {
  known_.emplace_back(key);
  const toml::node* node = find(key);
  if (!node) return;
  if (!node->is_array()) refuse(key, "a list of texts");
  value.clear();
  for (const toml::node& item : *node->as_array()) {
    const auto text = item.value_exact<std::string>();
    if (!text) refuse(key, "a list of texts");
    value.push_back(*text);
  }
}

void Section::done() const {
  if (!table_) return;
  for (const auto& [key, value] : *table_) {
    const std::string text(key.str());
    if (std::find(known_.begin(), known_.end(), text) == known_.end())
      throw UsageError(
          fmt::format("configuration: there is no setting \"{}.{}\"{}", name_, text, suggestion(text, known_)));
  }
}

void Section::refuse(const char* key, const char* kind) const {
  throw UsageError(fmt::format("configuration: {}.{} must be {}", name_, key, kind));
}

}  // namespace linnet
