#include "wrong_usage.h"

#include <fmt/format.h>

#include "core/text.h"
#include "io/text.h"

namespace linnet::app {
namespace {

std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  return names;
}

// Besides its verbs, as `linnet eval` takes two folders.
bool takes_files(const CLI::App& app) {
  return std::ranges::any_of(app.get_options(),
                             [](const CLI::Option* option) { return option->get_positional(); });
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::string suggestion(const std::string& name, const std::vector<std::string>& known) {
  const std::string near = nearest(name, known);
  return near.empty() ? std::string() : fmt::format("; did you mean \"{}\"?", near);
}

bool is_option(const std::string& text) { return text.size() > 1 && text[0] == '-' && !std::isdigit(text[1]); }

// "--seed=7" is "--seed"; "-n16" is "-n".
bool knows(const CLI::App& app, const std::string& text) {
  const bool is_long = text.starts_with("--");
  return app.get_option_no_throw(is_long ? text.substr(0, text.find('=')) : text.substr(0, 2)) != nullptr;
}

}  // namespace

WrongUsage explain(const CLI::App& app, const std::vector<std::string>& arguments,
                   const CLI::ParseError& error) {
  const CLI::App* verb = &app;
  std::string name = app.get_name();
  const bool extras = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  bool chosen = verbs_of(app).empty();
  for (const std::string& argument : arguments) {
    if (!chosen && !is_option(argument)) {
      const std::vector<std::string> known = verbs_of(*verb);
      if (std::ranges::find(known, argument) == known.end()) {
        if (takes_files(*verb)) {
          chosen = true;
          continue;
        }
        return {
            fmt::format("\"{}\" has no verb \"{}\"{}", name, printable(argument), suggestion(argument, known)),
            name};
      }
      verb = verb->get_subcommand(argument);
      name += " " + argument;
      chosen = verbs_of(*verb).empty();
    } else if (extras && is_option(argument) && !knows(*verb, argument)) {
      const std::string option = argument.substr(0, argument.find('='));
      return {fmt::format("\"{}\" has no option {}{}", name, printable(option),
                          suggestion(option, options_of(*verb))),
              name};
    }
  }
  if (!chosen)
    return {fmt::format("\"{}\" does one of these: {}", name, fmt::join(verbs_of(*verb), ", ")), name};
  return {error.what(), name};
}

}  // namespace linnet::app
