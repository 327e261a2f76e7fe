// The command line, as the verbs describe it. CLI11 does the work behind it and is seen by arguments.cpp and
// main.cpp alone: it is a large header, which every verb would otherwise be compiled with.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace linnet::app {

/// One argument while it is described; every function returns it for the next.
class Argument {
 public:
  explicit Argument(CLI::Option* option) : option_(option) {}

  const Argument& required() const;
  /// What stands for the value in the help: "FILE".
  const Argument& type_name(const std::string& name) const;
  /// Lets the help tell the value that it has now.
  const Argument& capture_default_str() const;
  const Argument& in_range(double low, double high) const;
  const Argument& one_of(const std::vector<std::string>& values) const;
  /// Values of one argument are separated by it, too.
  const Argument& delimiter(char separator) const;
  /// Takes one value each time that it is named, and not all that follow.
  const Argument& one_each() const;
  /// Of many that are told by their place: one in square brackets is itself, not a list.
  const Argument& as_they_stand() const;
  const Argument& needs(const Argument& other) const;
  const Argument& excludes(const Argument& other) const;

 private:
  CLI::Option* option_;
};

class Verb {
 public:
  explicit Verb(CLI::App* app) : app_(app) {}

  Verb add_subcommand(const std::string& name, const std::string& what) const;
  void require_subcommand(int least, int most) const;
  /// Whether one of its own verbs was chosen.
  bool has_chosen() const;
  /// From here on refuses what is said before one of the verbs added so far, as nobody would look at it.
  void refuse_options_before_verbs() const;

  /// The heading under which --help lists what is added from here on.
  void begin_group(const std::string& heading) const;
  /// names: "-o,--output", or "file" for what is told by its place. The value must live until the callback.
  /// Whole numbers are decimal.
  template <class T>
  Argument add_option(const std::string& names, T& value, const std::string& what) const;
  Argument add_flag(const std::string& names, bool& value, const std::string& what) const;
  void footer(const std::string& text) const;
  /// What the verb does when it is chosen.
  void callback(std::function<void()> run) const;

 private:
  CLI::App* app_;
};

}  // namespace linnet::app
