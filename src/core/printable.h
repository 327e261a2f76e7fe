// Text from strangers as it may be shown: it must not move the cursor of the terminal that an error is shown
// on.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace linnet {

/// UTF-8 text as one printable line: control characters, direction marks and invalid bytes become \n, \t or
/// \xNN, and text beyond limit bytes is cut and ends in "...".
std::string printable(std::string_view text, size_t limit = 200);

/// The length of the well-formed UTF-8 character at i, or 0 (overlong forms, surrogates and the like).
size_t character_length(std::string_view text, size_t i);

}  // namespace linnet
