// What the command shows while it works: a bar that redraws itself on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace linnet::app {

/// True if standard error is a terminal that understands carriage returns.
bool on_terminal();

/// "85 ms", "1.4 s", "3 min 20 s", "2 h 05 min"
std::string duration(double seconds);

/// A progress line on standard error. On a terminal it is redrawn at most ten times a second; elsewhere nothing
/// appears but what line() prints.
class Progress {
 public:
  Progress() = default;
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// done of total, with a text behind the bar.
  void show(double done, double total, const std::string& text);
  /// Prints a whole line, above the bar if there is one.
  void line(const std::string& text);

 private:
  void erase();

  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace linnet::app
