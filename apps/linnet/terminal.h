// What the command shows while it works: a bar that redraws itself on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <exception>
#include <string>
#include <string_view>

namespace linnet::app {

/// What standard error is drawn on; usual numbers where it does not say.
struct TerminalSize {
  int columns = 80, rows = 24;           ///< in characters
  int cell_width = 8, cell_height = 16;  ///< of a character, in pixels
};
TerminalSize terminal_size();

/// True if standard error is a terminal that understands carriage returns.
bool on_terminal();

/// Writes to standard error. What nobody can read, as it is closed or its disk is full, ends nothing: never
/// throws.
void tell(std::string_view text) noexcept;

/// Says why the command fails, as one line: what may quote what was typed or what a file says must leave the
/// terminal alone. Of several processes all but the first say which they are.
void tell_failure(const char* what);
/// The same of an error. Returns the exit code that it means.
int tell_failure(const std::exception& error);

/// Makes sure that 0, 1 and 2 are open, so that no file is opened as one of them and gets what is printed. What
/// is missing becomes one that cannot be written to.
void reserve_standard_streams();

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
  /// The bar as it stands with another text, at once.
  void stage(const std::string& text);
  /// Draws a picture in place of the last one, above the bar; text as TerminalPicture has it.
  void picture(const std::string& text, int rows);
  /// Prints a whole line, above the bar if there is one. A picture stays above it.
  void line(const std::string& text);

 private:
  void draw(const std::string& text);
  void erase();

  bool drawn_ = false;
  double share_ = 0;      // done, 0 to 1
  int picture_rows_ = 0;  // of the picture right above the bar
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace linnet::app
