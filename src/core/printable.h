// What is shown: text from strangers, which must not move the cursor of the terminal that an error is shown on,
// and numbers of things.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace linnet {

/// UTF-8 text as one printable line: control characters, direction marks and invalid bytes become \n, \t or
/// \xNN, and text beyond limit bytes is cut and ends in "...".
std::string printable(std::string_view text, size_t limit = 200);

/// "1 shard", "3 classes", "0 steps"
std::string counted(int64_t count, std::string_view noun);

/// The length of the well-formed UTF-8 character at i, or 0 (overlong forms, surrogates and the like).
size_t character_length(std::string_view text, size_t i);

}  // namespace linnet
