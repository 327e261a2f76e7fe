// Text from strangers, to be shown (printable), and to be read: what says that it is UTF-8 may not be. Nothing
// here knows of quoting for JSON or the shell.
#pragma once

#include <string>
#include <string_view>

#include "core/printable.h"

namespace linnet {

/// The text with every byte that is no UTF-8, and every NUL, as U+FFFD.
std::string valid_utf8(std::string_view text);
bool is_utf8(std::string_view text);

/// The most bytes of a text that is painted or encoded. An encoder looks at a few hundred words, and cutting a
/// text into its pieces takes more than a hundred times its own memory.
inline constexpr size_t most_text_bytes = 65536;
/// Why a text cannot be painted or encoded, behind its name: "is not UTF-8"; empty if it can. A zero byte is a
/// fault, too, as no picture's entries can hold one.
std::string fault_of_text(std::string_view text);

/// The text with every capital letter of every script as the small one, one by one (so a word's last Σ becomes
/// σ), but for İ, which becomes two characters; what is no UTF-8 stays as it is.
std::string lower_case(std::string_view text);

}  // namespace linnet
