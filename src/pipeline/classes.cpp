#include "pipeline/classes.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "core/error.h"
#include "core/text.h"
#include "io/text.h"

namespace linnet {
namespace {

// Lower case, words joined by hyphens, nothing at the ends.
std::string normalized(std::string_view text) {
  std::string result;
  for (const char c : lower_case(text)) {
    const bool joint = std::isspace(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    if (!joint)
      result += c;
    else if (!result.empty() && result.back() != '-')
      result += '-';
  }
  while (result.ends_with('-')) result.pop_back();
  return result;
}

std::optional<int64_t> try_find(std::string_view text, std::span<const std::string> names, int64_t count) {
  const auto exact = std::ranges::find(names, text);
  if (exact != names.end()) return exact - names.begin();
  const std::string wanted = normalized(text);
  const auto alike =
      std::ranges::find_if(names, [&](const std::string& name) { return normalized(name) == wanted; });
  if (alike != names.end() && !wanted.empty()) return alike - names.begin();
  int64_t index = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), index);
  const bool number = problem == std::errc() && end == text.data() + text.size();
  return number && index >= 0 && index < count ? std::optional(index) : std::nullopt;
}

}  // namespace

std::vector<std::string> names_of_classes(std::vector<std::string> own, int64_t count) {
  const auto& imagenet = imagenet_class_names();
  return own.empty() && count == static_cast<int64_t>(imagenet.size()) ? imagenet : own;
}

std::vector<int64_t> search_classes(std::string_view text, std::span<const std::string> names) {
  std::vector<int64_t> result;
  const std::string wanted = normalized(text);
  for (size_t i = 0; i < names.size(); ++i)
    if (normalized(names[i]).find(wanted) != std::string::npos) result.push_back(static_cast<int64_t>(i));
  return result;
}

int64_t find_class(std::string_view text, std::span<const std::string> names, int64_t count) {
  if (const auto found = try_find(text, names, count)) return *found;
  const std::string shown = printable(text);
  if (names.empty())
    throw UsageError(fmt::format("there is no class \"{}\": this model's classes have no names, say 0..{}",
                                 shown, count - 1));
  std::vector<std::string> candidates;
  for (const std::string& name : names) candidates.push_back(normalized(name));
  const std::string near = nearest(normalized(text), candidates);
  if (near.empty())
    throw UsageError(fmt::format(
        "there is no class \"{}\"; the {} classes begin with {}", shown, count,
        printable(fmt::format("{}", fmt::join(names.first(std::min<size_t>(4, names.size())), ", ")))));
  const auto at = static_cast<size_t>(std::ranges::find(candidates, near) - candidates.begin());
  throw UsageError(fmt::format("there is no class \"{}\"; did you mean \"{}\"?", shown, printable(names[at])));
}

std::vector<int64_t> find_classes(std::string_view text, std::span<const std::string> names, int64_t count) {
  if (const auto whole = try_find(text, names, count)) return {*whole};
  std::vector<int64_t> found;
  for (;;) {
    const size_t comma = text.find(',');
    found.push_back(find_class(text.substr(0, comma), names, count));
    if (comma == std::string_view::npos) return found;
    text.remove_prefix(comma + 1);
  }
}

std::string class_name(int64_t index, std::span<const std::string> names) {
  return static_cast<size_t>(index) < names.size() ? names[static_cast<size_t>(index)] : std::to_string(index);
}

}  // namespace linnet
