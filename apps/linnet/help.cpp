#include "help.h"

#include <fmt/format.h>

#include <sstream>

namespace linnet::app {
namespace {

constexpr size_t width = 80, names_width = 28;

}  // namespace

HelpFormatter::HelpFormatter() { column_width(names_width); }

std::string HelpFormatter::make_option_desc(const CLI::Option* option) const {
  const std::string initial = option->get_default_str();
  const std::string text =
      option->get_description() + (initial.empty() ? "" : fmt::format(" (default: {})", initial));
  return wrapped(text, width - names_width);
}

std::string HelpFormatter::make_option_opts(const CLI::Option* option) const {
  // What is told by its place is called by what it is: "file", "dir".
  return option->get_positional() || option->get_type_size() == 0 ? std::string()
                                                                  : " " + option->get_type_name();
}

std::string HelpFormatter::make_subcommand(const CLI::App* verb) const {
  std::ostringstream out;
  CLI::detail::format_help(out, verb->get_name(), wrapped(verb->get_description(), width - names_width),
                           names_width);
  return out.str();
}

// With one empty line between groups of options, where CLI11 has two.
std::string HelpFormatter::make_help(const CLI::App* verb, std::string name, CLI::AppFormatMode mode) const {
  const std::string text = CLI::Formatter::make_help(verb, std::move(name), mode);
  return CLI::detail::find_and_replace(text, "\n\n\n", "\n\n");
}

std::string wrapped(const std::string& text, size_t columns) {
  std::string result, word;
  size_t used = 0;
  for (std::istringstream words(text); words >> word; used += word.size()) {
    const bool fits = used + 1 + word.size() <= columns;
    if (used > 0) result += fits ? " " : "\n";
    used = used > 0 && fits ? used + 1 : 0;
    result += word;
  }
  return result;
}

}  // namespace linnet::app
