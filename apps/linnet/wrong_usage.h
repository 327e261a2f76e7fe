// What to say when a command line cannot be understood.
#pragma once

#include <CLI/CLI.hpp>

namespace linnet::app {

/// One sentence about the first thing that is wrong, with the nearest known verb or option, and the help to
/// read: "linnet generate --help".
struct WrongUsage {
  std::string sentence, help;
};
WrongUsage explain(const CLI::App& app, const std::vector<std::string>& arguments,
                   const CLI::ParseError& error);

}  // namespace linnet::app
