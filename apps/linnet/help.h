// How --help looks: descriptions wrapped to 80 columns beside the names.
#pragma once

#include <CLI/CLI.hpp>

namespace linnet::app {

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter();
  std::string make_option_desc(const CLI::Option* option) const override;
  std::string make_option_opts(const CLI::Option* option) const override;
  std::string make_subcommand(const CLI::App* verb) const override;
  std::string make_help(const CLI::App* verb, std::string name, CLI::AppFormatMode mode) const override;
};

/// Words put into lines of at most `width` characters.
std::string wrapped(const std::string& text, size_t width);

}  // namespace linnet::app
