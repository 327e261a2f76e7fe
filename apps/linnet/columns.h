// How much room text takes on a terminal.
#pragma once

#include <string_view>

namespace linnet::app {

/// The columns that UTF-8 text takes at most: two of a Chinese, Japanese or Korean character or an emoji, one
/// of any other, and of a byte that is no UTF-8. (Marks upon the character before them take none in truth.)
int columns_of(std::string_view text);

/// As many of the first whole characters as there is room for.
std::string_view beginning(std::string_view text, int columns);

}  // namespace linnet::app
