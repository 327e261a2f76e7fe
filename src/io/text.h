// Text from strangers. What a file calls its tensors must not move the cursor of the terminal that an error is
// shown on; and what says that it is UTF-8 may not be. Nothing here knows of quoting for JSON or the shell.
#pragma once

#include <string>
#include <string_view>

namespace linnet {

/// UTF-8 text as one printable line: control characters, direction marks and invalid bytes become \n, \t or
/// \xNN, and text beyond limit bytes is cut and ends in "...".
std::string printable(std::string_view text, size_t limit = 200);

/// The text with every byte that is no UTF-8, and every NUL, as U+FFFD.
std::string valid_utf8(std::string_view text);
bool is_utf8(std::string_view text);

/// The text with every capital letter of every script as the small one, one by one (so a word's last Σ becomes
/// σ); what is no UTF-8 stays as it is.
std::string lower_case(std::string_view text);

}  // namespace linnet
