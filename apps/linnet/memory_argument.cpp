#include "memory_argument.h"

#include <charconv>
#include <cmath>

#include "core/error.h"
#include "io/text.h"

namespace linnet::app {

size_t bytes_from(const std::string& text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, problem] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  double unit = 1;
  bool known = problem == std::errc() && end - rest <= 1;
  if (known && rest != end) {
    const size_t power = std::string_view("KMG").find(*rest);
    known = power != std::string_view::npos;
    unit = std::pow(1024.0, static_cast<double>(power) + 1);
  }
  if (!known || !(number >= 0) || number * unit > 1e15)
    throw UsageError(
        fmt::format("an amount of memory is a number such as 512M or 4G, not \"{}\"", printable(text)));
  return static_cast<size_t>(number * unit);
}

}  // namespace linnet::app
