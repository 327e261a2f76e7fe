// Text from files in messages: what a file calls its tensors must not move the cursor of the terminal that an
// error is shown on. Escapes only; it knows nothing of quoting for JSON or the shell.
#pragma once

#include <string>
#include <string_view>

namespace linnet {

/// UTF-8 text as one printable line: control characters, direction marks and invalid bytes become \n, \t or
/// \xNN, and text beyond limit bytes is cut and ends in "...".
std::string printable(std::string_view text, size_t limit = 200);

}  // namespace linnet
