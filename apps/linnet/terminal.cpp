#include "terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "columns.h"
#include "core/error.h"
#include "core/printable.h"
#include "core/processes.h"

namespace linnet::app {

TerminalSize terminal_size() {
  winsize size{};
  TerminalSize result;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return result;
  result.columns = size.ws_col;
  result.rows = size.ws_row;
  if (size.ws_xpixel >= size.ws_col) result.cell_width = size.ws_xpixel / size.ws_col;
  if (size.ws_ypixel >= size.ws_row) result.cell_height = size.ws_ypixel / size.ws_row;
  return result;
}

bool on_terminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

void tell(std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void tell_failure(const char* what) {
  const ProcessShare share = process_share();
  const std::string which = share.index > 0 ? which_process(share) : "";
  tell(fmt::format("linnet: {}{}\n", which, printable(what, 4000)));
}

int tell_failure(const std::exception& error) {
  const bool no_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  tell_failure(no_memory ? "out of memory" : error.what());
  return dynamic_cast<const UsageError*>(&error) ? 2 : 1;
}

void reserve_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(descriptor, F_GETFD) < 0) (void)::open("/dev/null", O_RDONLY);  // the lowest that is free
}

std::string duration(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", 1000 * seconds);
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<long>(seconds + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

Progress::~Progress() { erase(); }

void Progress::show(double done, double total, const std::string& text) {
  const auto now = std::chrono::steady_clock::now();
  if (!on_terminal() || (drawn_ && done < total && now - last_ < std::chrono::milliseconds(100))) return;
  last_ = now;
  share_ = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 1.0;
  draw(text);
}

void Progress::stage(const std::string& text) {
  if (on_terminal()) draw(text);
}

void Progress::draw(const std::string& text) {
  drawn_ = true;
  // The text matters more than a long bar: on a narrow terminal the bar gives way, at last to the per cent
  // alone, as a line that wraps could not be drawn over.
  const int columns = terminal_size().columns, around = 9, least = 8;
  if (columns < around + least) return tell(fmt::format("\r\033[K{:3.0f}%", 100 * share_));
  const int width = std::clamp(columns - around - columns_of(text), least, 28);
  const auto eighths = static_cast<int>(share_ * width * 8 + 0.5);
  std::string bar;
  for (int i = 0; i < width; ++i) {
    static constexpr const char* parts[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    bar += parts[std::clamp(eighths - 8 * i, 0, 8)];
  }
  const int room = std::max(0, columns - around - width);
  tell(fmt::format("\r\033[K{:3.0f}% ▕{}▏ {}", 100 * share_, bar, beginning(text, room)));
}

void Progress::picture(const std::string& text, int rows) {
  if (!on_terminal()) return;
  erase();
  if (picture_rows_ > 0) tell(fmt::format("\033[{}A\033[J", picture_rows_));
  tell(text);
  picture_rows_ = rows;
}

void Progress::line(const std::string& text) {
  erase();
  tell(text + "\n");
  picture_rows_ = 0;
}

void Progress::erase() {
  if (!drawn_) return;
  tell("\r\033[K");
  drawn_ = false;
}

}  // namespace linnet::app
